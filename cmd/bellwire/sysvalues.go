package main

import (
	"math"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/mqtt"
)

// What a node tells below $SYS/: mosquitto's values under mosquitto's names, so that what
// shows those shows these, and under $SYS/bellwire/nodes/{node}/ whatever /metrics has, by
// the metrics' names: what is counted is counted once, and told by both.

// sysInterval is how often values are looked at.
const sysInterval = 10 * time.Second

// startSystem has the node tell of itself.
func (s *server) startSystem() {
	v := &sysValues{began: time.Now()}
	s.mosquittoValues(v)
	s.ownValues(v)
	s.limitValues(v)
	v.interval = s.config.sysInterval
	s.systemValues = v.values
	s.broker.StartSystem(broker.SystemConfig{Values: s.withBridges(), Sample: v.sample, Every: v.interval})
}

// withBridges returns the values that the node tells, those of the bridges that there are
// now among them.
func (s *server) withBridges() []broker.SystemValue {
	v := &sysValues{values: slices.Clone(s.systemValues)}
	s.bridgeValues(v)
	v.metrics(s, s.bridgeMetrics())
	return v.values
}

// sysValues are being gathered.
type sysValues struct {
	began    time.Time
	interval time.Duration
	values   []broker.SystemValue
	loads    []*load
	heap     heap
}

// sysBroker begins mosquitto's names.
const sysBroker = "$SYS/broker/"

func (v *sysValues) text(name string, read func() string) {
	v.values = append(v.values, broker.SystemValue{Topic: sysBroker + name, Read: read})
}

func (v *sysValues) count(name string, read func() uint64) {
	v.text(name, func() string { return strconv.FormatUint(read(), 10) })
}

func (v *sysValues) gauge(name string, read func() int64) {
	v.text(name, func() string { return strconv.FormatInt(read(), 10) })
}

// rate is count, and what it was in a minute of late, averaged over 1, 5 and 15 minutes as
// loads of machines are.
func (v *sysValues) rate(name string, read func() uint64) {
	l := &load{read: read, last: read()}
	v.loads = append(v.loads, l)
	for i, span := range loadSpans {
		average := &l.averages[i]
		v.text("load/"+name+"/"+span.name, func() string {
			return strconv.FormatFloat(math.Float64frombits(average.Load()), 'f', 2, 64)
		})
	}
}

// sample takes note of what has been counted since it was last called.
func (v *sysValues) sample() {
	for _, l := range v.loads {
		l.sample(v.interval)
	}
	v.heap.sample()
}

// A load is how much of something is counted in a minute.
type load struct {
	read     func() uint64
	last     uint64
	averages [len(loadSpans)]atomic.Uint64 // float64 bits, by loadSpans
}

var loadSpans = [...]struct {
	name string
	span time.Duration
}{{"1min", time.Minute}, {"5min", 5 * time.Minute}, {"15min", 15 * time.Minute}}

// sample counts what has come in the time since it was last called.
func (l *load) sample(since time.Duration) {
	now := l.read()
	perMinute := float64(now-l.last) * float64(time.Minute) / float64(since)
	l.last = now
	for i := range l.averages {
		keep := math.Exp(-float64(since) / float64(loadSpans[i].span))
		old := math.Float64frombits(l.averages[i].Load())
		l.averages[i].Store(math.Float64bits(perMinute + keep*(old-perMinute)))
	}
}

// A heap is what the program's objects take of memory.
type heap struct{ most atomic.Uint64 }

func (h *heap) now() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// sample takes note of the most.
func (h *heap) sample() {
	if n := h.now(); n > h.most.Load() {
		h.most.Store(n)
	}
}

// mosquittoValues are those of mosquitto(8), of this node. What has no meaning here is left
// out: when the program was built.
func (s *server) mosquittoValues(v *sysValues) {
	b, m := s.broker.Stats(), s.mqtt.Stats()
	v.text("version", func() string { return "bellwire " + version })
	v.text("uptime", func() string { return strconv.FormatInt(int64(time.Since(v.began)/time.Second), 10) + " seconds" })

	waiting := func() int64 { n, _ := s.broker.SessionsWaiting(); return n }
	for _, name := range []string{"connected", "active"} {
		v.gauge("clients/"+name, b.Sessions.Load)
	}
	for _, name := range []string{"disconnected", "inactive"} {
		v.gauge("clients/"+name, waiting)
	}
	v.gauge("clients/total", func() int64 { return b.Sessions.Load() + waiting() })
	v.gauge("clients/maximum", m.Most.Load)
	v.count("clients/expired", s.broker.SessionsExpired)

	received, sent := func() (n uint64) { return sum(m.PacketsIn[:]) }, func() (n uint64) { return sum(m.PacketsOut[:]) }
	v.count("messages/received", received)
	v.count("messages/sent", sent)
	v.count("bytes/received", m.BytesIn.Load)
	v.count("bytes/sent", m.BytesOut.Load)
	publishes := []struct {
		name string
		read func() uint64
	}{
		{"received", m.PacketsIn[mqtt.PacketPublish].Load},
		{"sent", m.PacketsOut[mqtt.PacketPublish].Load},
		{"dropped", func() uint64 {
			return b.QueueDropped.Load() + m.Dropped[mqtt.DropFull].Load() + b.SharedLost.Load()
		}},
	}
	for _, p := range publishes {
		v.count("publish/messages/"+p.name, p.read)
		v.rate("publish/"+p.name, p.read)
	}
	v.count("publish/bytes/received", m.PayloadIn.Load)
	v.count("publish/bytes/sent", m.PayloadOut.Load)
	v.rate("messages/received", received)
	v.rate("messages/sent", sent)
	v.rate("bytes/received", m.BytesIn.Load)
	v.rate("bytes/sent", m.BytesOut.Load)
	v.rate("sockets", m.Accepted.Load)
	v.rate("connections", func() (n uint64) { return sum(m.Connects[:]) })

	v.gauge("subscriptions/count", func() int64 { _, away := s.broker.SessionsWaiting(); return b.Subscriptions.Load() + away })
	v.gauge("retained messages/count", s.broker.Retained)
	held := func() int64 { events, _ := s.broker.QueuesHold(); return events + s.broker.Retained() }
	v.gauge("store/messages/count", held)
	v.gauge("messages/stored", held)
	v.gauge("store/messages/bytes", func() int64 { _, bytes := s.broker.QueuesHold(); return bytes })
	v.gauge("shared_subscriptions/count", b.SharedHere.Load)
	for _, size := range []string{"", " size"} { // as mosquitto 2 has it, and as its manual does
		v.count("heap/current"+size, v.heap.now)
		v.count("heap/maximum"+size, func() uint64 { v.heap.sample(); return v.heap.most.Load() })
	}
}

func sum(counters []atomic.Uint64) (n uint64) {
	for i := range counters {
		n += counters[i].Load()
	}
	return n
}

// ownValues are the metrics, of which other nodes' clients may have those of this node, too.
func (s *server) ownValues(v *sysValues) {
	base := broker.SystemTopic(s.config.node)
	for _, t := range []table{s.brokerMetrics(), s.clusterMetrics(), nodeMetrics(s.node.Stats)} {
		v.metrics(s, t)
	}
	for name, read := range map[string]func() string{
		"version": func() string { return version },
		"tzdata":  func() string { return acl.Zones },
		"id":      func() string { return s.dir.Identity().Node },
		"leader":  func() string { return s.node.Status().LeaderID },
		"uptime":  func() string { return strconv.FormatInt(int64(time.Since(v.began)/time.Second), 10) },
	} {
		v.values = append(v.values, broker.SystemValue{Topic: base + name, Shared: true, Read: read})
	}
}

// metrics adds those of a table.
func (v *sysValues) metrics(s *server, t table) {
	base := broker.SystemTopic(s.config.node)
	for i := range t {
		r := &t[i]
		v.values = append(v.values, broker.SystemValue{Topic: base + r.topic(), Shared: true, Read: func() string {
			return strconv.FormatFloat(r.read(), 'f', -1, 64)
		}})
	}
}

// topic is the end of the topic that a metric is told by: its name, and its labels each as a
// level of their own.
func (r *row) topic() string {
	return strings.Join(append([]string{r.name}, r.label...), "/")
}
