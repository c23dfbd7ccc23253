package mqtt

import (
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
)

// What is granted is told with SUBACK to who takes problem information and a packet so
// large; nobody's connection ends for want of that, and a reason has the room that it
// leaves.
//
// MQTT 5: 3.9.2-1, 3.9.2-2.
func TestGrantedIsTold(t *testing.T) {
	props := event.AppendUserProperty(event.AppendUserProperty(nil, "evt-sid", "s-1"), "evt-expires", "60")
	const size = 5 + len("evt-sid") + len("s-1") + 5 + len("evt-expires") + len("60")
	const least = maxHeader + 2 + 1 + maxVarint // of one code and no properties, as it is reckoned
	reason := reasonText(codeNotAuthorized, "no")
	for _, x := range []struct {
		name         string
		version      byte
		problemInfo  bool
		maxPacket    int
		told, reason bool
	}{
		{"plain", 5, true, 1 << 20, true, true},
		{"declined", 5, false, 1 << 20, false, false},
		{"3.1.1", 4, true, 1 << 20, false, false},
		{"both fit", 5, true, least + size + 3 + len(reason), true, true},
		{"the reason does not", 5, true, least + size + 3 + len(reason) - 1, true, false},
		{"what is granted just fits", 5, true, least + size, true, false},
		{"nor that", 5, true, least + size - 1, false, true},
	} {
		c := offline(x.version)
		c.problemInfo, c.maxPacket = x.problemInfo, x.maxPacket
		suback := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Suback}, PacketID: 1, ReasonCodes: []byte{codeNotAuthorized}}
		var w broker.Wave
		c.tellGranted(suback, props)
		c.acknowledge(suback, codeNotAuthorized, "no", &w)
		sent := string(c.taken())
		if c.ending || len(sent) == 0 || len(sent) > x.maxPacket {
			t.Errorf("%s: ending %v, sent % x", x.name, c.ending, sent)
		}
		if told := strings.Contains(sent, "evt-sid") && strings.Contains(sent, "evt-expires"); told != x.told {
			t.Errorf("%s: told what is granted: %v, want %v", x.name, told, x.told)
		}
		if told := strings.Contains(sent, reason); told != x.reason {
			t.Errorf("%s: told the reason: %v, want %v", x.name, told, x.reason)
		}
	}
}
