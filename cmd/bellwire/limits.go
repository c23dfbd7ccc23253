package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/mqtt"
)

// limits are the bounds of a node, as --limits has them.
type limits struct {
	broker   broker.Limits
	mqtt     mqtt.Limits
	lowWater uint64
}

// limitsFile is the form of the file. A row that is left out keeps its
// default; a row that we do not know refuses the file.
type limitsFile struct {
	V       int       `yaml:"v"`
	Default limitRows `yaml:"default"`
}

type limitRows struct {
	Connections          int      `yaml:"connections"`
	ConnectionsPerAddr   int      `yaml:"connections.perAddress"`
	ConnectionsPerMinute int      `yaml:"connections.perAddressPerMinute"`
	Handshakes           int      `yaml:"connect.handshakes"`
	ConnectTimeout       span     `yaml:"connect.timeout"`
	ConnectBytes         byteSize `yaml:"connect.packetBytes"`
	PacketBytes          byteSize `yaml:"packet.bytes"`
	ReceiveMaximum       int      `yaml:"receiveMaximum"`
	TopicAliases         int      `yaml:"topicAliases"`
	ClientIDBytes        byteSize `yaml:"clientId.bytes"`
	OutputBytes          byteSize `yaml:"output.bytes"`
	SlowTimeout          span     `yaml:"slow.timeout"`
	KeepAliveMax         span     `yaml:"keepAlive.max"`
	Sessions             int      `yaml:"sessions"`
	SessionExpiryMax     span     `yaml:"session.expiryMax"`
	QueueEvents          int      `yaml:"session.queueEvents"`
	QueueBytes           byteSize `yaml:"session.queueBytes"`
	VolatileEvents       int      `yaml:"session.volatileEvents"`
	VolatileBytes        byteSize `yaml:"session.volatileBytes"`
	Subscriptions        int      `yaml:"subs.perSession"`
	RetainedTopics       int      `yaml:"retained.topics"`
	BacklogBytes         byteSize `yaml:"backlog.bytes"`
	DiskLowWater         byteSize `yaml:"disk.lowWater"`
}

// readLimits reads a limits file.
func readLimits(name string) (limits, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return limits{}, fail(bwLimitsFile, "limits %s: %w", name, rootCause(err))
	}
	var f limitsFile
	d := yaml.NewDecoder(bytes.NewReader(data), yaml.DisallowUnknownField())
	if err := d.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return limits{}, fail(bwLimitsFile, "limits %s: %s", name, strings.TrimSpace(yaml.FormatError(err, false, true)))
	}
	if f.V != 1 {
		return limits{}, fail(bwLimitsFile, "limits %s: v: %d, want 1", name, f.V)
	}
	return f.Default.limits(name)
}

func (r *limitRows) limits(name string) (limits, error) {
	for row, n := range map[string]int{
		"connections": r.Connections, "sessions": r.Sessions, "session.queueEvents": r.QueueEvents,
		"session.volatileEvents": r.VolatileEvents, "subs.perSession": r.Subscriptions, "retained.topics": r.RetainedTopics,
		"receiveMaximum": r.ReceiveMaximum, "connect.handshakes": r.Handshakes,
	} {
		if n < 0 {
			return limits{}, fail(bwLimitsFile, "limits %s: %s: %d, want at least 1", name, row, n)
		}
	}
	if r.PacketBytes > packetBytesMax {
		return limits{}, fail(bwLimitsFile, "limits %s: packet.bytes: %d, want at most %d: an event is one entry of the log", name, r.PacketBytes, packetBytesMax)
	}
	return limits{
		broker: broker.Limits{
			Sessions: r.Sessions, SubscriptionsPerSession: r.Subscriptions, RetainedTopics: r.RetainedTopics,
			QueueEvents: r.QueueEvents, QueueBytes: int64(r.QueueBytes),
			VolatileEvents: r.VolatileEvents, VolatileBytes: int64(r.VolatileBytes),
			Backlog: int(r.BacklogBytes), SessionExpiryMax: uint32(time.Duration(r.SessionExpiryMax) / time.Second),
		},
		mqtt: mqtt.Limits{
			Connections: r.Connections, PerAddress: r.ConnectionsPerAddr, PerAddressRate: r.ConnectionsPerMinute,
			Handshakes: r.Handshakes, ConnectTimeout: time.Duration(r.ConnectTimeout), ConnectPacket: int(r.ConnectBytes),
			Packet: int(r.PacketBytes), ReceiveMaximum: r.ReceiveMaximum, TopicAliases: r.TopicAliases,
			ClientID: int(r.ClientIDBytes), Output: int(r.OutputBytes),
			SlowTimeout: time.Duration(r.SlowTimeout), KeepAlive: time.Duration(r.KeepAliveMax),
			SessionExpiry: time.Duration(r.SessionExpiryMax),
		},
		lowWater: uint64(r.DiskLowWater),
	}, nil
}

// packetBytesMax leaves room for what a command adds to an event within the
// largest batch that the log takes.
const packetBytesMax = 1<<20 - 8<<10

// A byteSize is a number of bytes with its unit: 512B, 64KiB, 1MiB, 2GiB.
type byteSize uint64

func (s *byteSize) UnmarshalYAML(b []byte) error {
	text := strings.Trim(strings.TrimSpace(string(b)), `"'`)
	for _, u := range []struct {
		name string
		size uint64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"B", 1}} {
		if digits, ok := strings.CutSuffix(text, u.name); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 40)
			if err != nil || n*u.size/u.size != n {
				break
			}
			*s = byteSize(n * u.size)
			return nil
		}
	}
	return fmt.Errorf("%q is no size: write a number and its unit, like 64KiB (or B, MiB, GiB)", text)
}

// A span is a length of time with its unit: 30s, 5m, 12h, 90d.
type span time.Duration

func (s *span) UnmarshalYAML(b []byte) error {
	text := strings.Trim(strings.TrimSpace(string(b)), `"'`)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			*s = span(time.Duration(n) * 24 * time.Hour)
			return nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return fmt.Errorf("%q is no length of time: write a number and its unit, like 30s (or ms, m, h, d)", text)
	}
	*s = span(d)
	return nil
}
