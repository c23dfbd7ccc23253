package blackbox

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// Each event goes to one of a group, and to who subscribes alone besides; to who has
// left nothing more. What a member is sent and does not acknowledge goes to another
// when its session ends, unless it was of QoS 2; a negative acknowledgement ends it.
// At SUBSCRIBE nothing retained comes, and RETAIN is 0.
//
// MQTT 5: 4.8.2-4, 4.8.2-5, 4.8.2-6.
func TestMQTT51SharedGroups(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		topic, filter := name(t), "$share/"+fmt.Sprint("g", v)+"/"+name(t)
		pub := mq.Open(t, addr, v, clean(name(t, "pub")))
		pub.PublishMessage(mq.Publish{Topic: topic, QoS: 1, Retain: true, Payload: []byte("kept")})
		alone := mq.Open(t, addr, v, clean(name(t, "alone")))
		alone.Subscribe(topic, 1)
		alone.ReceiveText(topic, "kept")
		var members []*mq.Client
		for i := range 3 {
			m := mq.Open(t, addr, v, clean(name(t, fmt.Sprint("m", i))))
			m.Subscribe(filter, 2)
			m.Quiet()
			members = append(members, m)
		}
		for i := range 6 {
			text := fmt.Sprint(i)
			pub.PublishMessage(mq.Publish{Topic: topic, QoS: byte(i % 3), Retain: i == 4, Payload: []byte(text)})
			alone.ReceiveText(topic, text)
		}
		var got []string
		for _, m := range members {
			for range 2 {
				p := m.Receive()
				if p.Retain() {
					t.Errorf("%v has RETAIN set", p)
				}
				got = append(got, string(p.Payload))
			}
			m.Quiet()
		}
		if slices.Sort(got); !slices.Equal(got, []string{"0", "1", "2", "3", "4", "5"}) {
			t.Errorf("the group got %q, want each once", got)
		}
		members[2].Unsubscribe(filter)
		members[1].Disconnect()
		for i := range 4 {
			pub.Publish(topic, 1+byte(i%2), fmt.Sprint("last ", i))
		}
		for i := range 4 { // sent, and none acknowledged but one, badly if that can be said
			p := members[0].Await(mq.PUBLISH, 0)
			if want := fmt.Sprint("last ", i); string(p.Payload) != want {
				t.Errorf("got %v, want %s", p, want)
			}
			if i == 2 {
				code := byte(0)
				if v == v5 {
					code = 0x80
				}
				members[0].Send(mq.Ack{Type: mq.PUBACK, ID: p.ID, Code: code})
			}
		}
		members[2].Subscribe(filter, 2)
		members[0].Disconnect()
		members[2].ReceiveText(topic, "last 0")
		members[2].Quiet()
	})
}

// Filters that are no group's, what nobody may share, and No Local.
//
// MQTT 5: 3.8.3-4, 4.8.2-1, 4.8.2-2.
func TestMQTT51SharedIsNotForAll(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	c := s.open(v5, clean("c"))
	for filter, code := range map[string]byte{"$share/g/presence/example.com/bob": 0x9E, "$share/g/$me/policy/presence": 0x9E, "$share/g": 0x8F, "$share/g/#": 1} {
		if ack := c.TrySubscribe(nil, mq.Filter{Filter: filter, QoS: 1}); len(ack.Codes) != 1 || ack.Codes[0] != code {
			t.Errorf("%s: got %v, want code %#02x", filter, ack, code)
		}
	}
	old := s.open(v4, clean("old"))
	if ack := old.TrySubscribe(nil, mq.Filter{Filter: "$share/g/presence/example.com/bob", QoS: 1}); len(ack.Codes) != 1 || ack.Codes[0] != 0x80 {
		t.Errorf("3.1.1: got %v, want code 0x80", ack)
	}
	ack := mq.Open(t, s.ready.MQTT, v5, clean("no local"))
	ack.Send(mq.Subscribe{ID: 1, Filters: []mq.Filter{{Filter: "$share/g/a", NoLocal: true}}})
	ack.ClosedWith(0x82)
}

// Three mosquitto_subs share 300 events, each of them getting some.
func TestMQTT51SharedMosquitto(t *testing.T) {
	t.Parallel()
	addr := plain(t)
	for _, version := range []string{"mqttv311", "mqttv5"} {
		topic := name(t, version)
		var members []<-chan string
		for range 3 {
			members = append(members, mosquitto(t, version).subscribe(t, addr, "$share/group/"+topic))
		}
		publishMany(t, mq.Open(t, addr, v5, clean(name(t, "pub"))), topic, 1, 1, 300)
		got := map[string]int{}
		each := make([]int, 3)
		timeout := time.After(mq.Patience)
		for range 300 {
			var line string
			who := 0
			select {
			case line = <-members[0]:
			case line = <-members[1]:
				who = 1
			case line = <-members[2]:
				who = 2
			case <-timeout:
				t.Fatalf("%s: %d of 300 arrived, %d each", version, len(got), each)
			}
			got[line]++
			each[who]++
		}
		// Who is behind is passed over, as a process is that the machine lets wait; turns
		// are exact in TestSharedByTurns.
		if len(got) != 300 || slices.Min(each) == 0 {
			t.Errorf("%s: %d different events, want 300; %d each", version, len(got), each)
		}
	}
}

// Three members on three nodes share 3,000 events, of which the node of one is killed
// in the middle: none that was acknowledged to the publisher is lost, and what comes
// twice is no more than the one that is gone may have had.
//
// Item 51.
func TestClusterSharedGroups(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	const events, most = 3000, 1024
	taken := &takings{by: map[string][]int{}}
	for i := range clusterSize {
		conn, _, err := connectAny(c.addresses(i)[:1], mq.Connect{ClientID: fmt.Sprint("member", i), Clean: true})
		if err != nil {
			t.Fatal(err)
		}
		m := mq.Subscribe{ID: 1, Filters: []mq.Filter{{Filter: "$share/workers/jobs/#", QoS: 1}}}
		if err := conn.Write(m); err != nil {
			t.Fatal(err)
		}
		if ack, err := conn.Read(mq.Patience); err != nil || ack.Codes[0] != 1 {
			t.Fatalf("SUBSCRIBE: %v, %v", ack, err)
		}
		t.Cleanup(func() { conn.Close() })
		go taken.take(conn, i)
	}
	victim := 2
	publishThrough(t, c, 0, events/2)
	c.nodes[victim].kill()
	publishThrough(t, c, events/2, events)
	until(t, "every event is with somebody", time.Minute, func() bool { return taken.different() == events })
	c.nodes[victim].start()
	c.caughtUp()
	c.alike()
	again, each := taken.counts()
	t.Logf("%d events came twice; %d each", again, each)
	if again > 2*most {
		t.Errorf("%d events came twice, want at most what one member may have had, and what was published again", again)
	}
	if slices.Min(each[:]) == 0 {
		t.Errorf("%d each, want all of them to have some", each)
	}
}

// publishThrough publishes numbered events at QoS 1, in batches, each until it is
// acknowledged, by whichever node answers.
func publishThrough(t *testing.T, c *trio, from, until int) {
	t.Helper()
	const batch = 50
	var conn *mq.Conn
	for tries := 0; from < until; tries++ {
		if tries > 1000 {
			t.Fatal("no node takes what is published")
		}
		if conn == nil {
			var err error
			if conn, _, err = connectAny(c.addresses(0), mq.Connect{ClientID: "pub", Clean: true}); err != nil {
				continue
			}
		}
		n := min(batch, until-from)
		if err := publishBatch(conn, from, n); err != nil {
			conn.Close()
			conn = nil
			continue
		}
		from += n
	}
	conn.Close()
}

func publishBatch(conn *mq.Conn, from, n int) error {
	var batch []mq.Message
	for i := range n {
		batch = append(batch, mq.Publish{Topic: fmt.Sprint("jobs/", i%7), QoS: 1, ID: uint16(i + 1), Payload: fmt.Append(nil, from+i)})
	}
	if err := conn.Write(batch...); err != nil {
		return err
	}
	for range n {
		ack, err := conn.Read(10 * time.Second)
		if err != nil {
			return err
		}
		if ack.Type != mq.PUBACK || ack.Code >= 0x80 {
			return fmt.Errorf("got %v", ack)
		}
	}
	return nil
}

// Takings are what the members of a group have got.
type takings struct {
	mu sync.Mutex
	by map[string][]int
}

// take takes what member is sent, and acknowledges it, until its connection is gone.
func (k *takings) take(conn *mq.Conn, member int) {
	for {
		p, err := conn.Read(time.Hour)
		if err != nil {
			return
		}
		if p.Type != mq.PUBLISH {
			continue
		}
		k.mu.Lock()
		k.by[string(p.Payload)] = append(k.by[string(p.Payload)], member)
		k.mu.Unlock()
		if conn.Write(mq.Ack{Type: mq.PUBACK, ID: p.ID}) != nil {
			return
		}
	}
}

func (k *takings) different() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.by)
}

func (k *takings) counts() (again int, each [clusterSize]int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, who := range k.by {
		again += len(who) - 1
		for _, member := range who {
			each[member]++
		}
	}
	return again, each
}
