package blackbox

import (
	"fmt"
	"slices"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

// Witnesses are three healthy clients that must notice nothing: a publisher
// and two subscribers of different version and QoS.
type witnesses struct {
	publisher   *mq.Client
	subscribers []*mq.Client
	topic       string
	rounds      int
}

func newWitnesses(t *testing.T, addr string) *witnesses {
	w := &witnesses{topic: name(t, "healthy")}
	w.publisher = mq.Open(t, addr, v5, clean(name(t, "publisher")))
	for i, v := range []byte{v4, v5} {
		s := mq.Open(t, addr, v, clean(name(t, fmt.Sprint("subscriber", v))))
		s.Subscribe(w.topic, byte(1+i))
		w.subscribers = append(w.subscribers, s)
	}
	return w
}

// check does a round: one message that reaches both, and nothing else does. One
// of QoS 2 goes through the log.
func (w *witnesses) check(t *testing.T, qos byte, after string) {
	t.Helper()
	w.rounds++
	text := fmt.Sprint(w.rounds, " ", after)
	w.publisher.Publish(w.topic, qos, text)
	for _, s := range w.subscribers {
		s.ReceiveText(w.topic, text)
	}
}

// What looks odd but is legal is accepted: the same table's other side.
func TestGuardsAcceptWhatIsLegal(t *testing.T) {
	addr := plain(t)
	t.Run("empty will payload", func(t *testing.T) {
		sub := mq.Open(t, addr, v5, clean(name(t, "sub")))
		sub.Subscribe(name(t), 1)
		c := mq.Open(t, addr, v5, mq.Connect{ClientID: name(t), Clean: true, Will: &mq.Will{Topic: name(t), QoS: 1}})
		c.Send(mq.Reason{Type: mq.DISCONNECT, Code: 4})
		sub.ReceiveText(name(t), "")
	})
	t.Run("DISCONNECT of length 1 keeps its code", func(t *testing.T) {
		// 0x04 asks for the will; read as 0x00 it would be lost.
		sub := mq.Open(t, addr, v5, clean(name(t, "sub")))
		sub.Subscribe(name(t), 1)
		c := mq.Open(t, addr, v5, mq.Connect{ClientID: name(t), Clean: true, Will: &mq.Will{Topic: name(t), QoS: 1, Payload: []byte("will")}})
		c.Send(mq.Frame(0xE0, 0x04))
		sub.ReceiveText(name(t), "will")
	})
	t.Run("PUBACK of three bytes", func(t *testing.T) {
		c := mq.Open(t, addr, v5, clean(name(t)))
		c.Subscribe(name(t), 1)
		c.Publish(name(t), 1, "x")
		p := c.Await(mq.PUBLISH, 0)
		c.Send(mq.Frame(0x40, byte(p.ID>>8), byte(p.ID), 0x10))
		c.Quiet()
	})
	t.Run("User Property repeated", func(t *testing.T) {
		c := mq.Open(t, addr, v5, clean(name(t)))
		c.PublishMessage(mq.Publish{Topic: name(t), QoS: 1, Properties: mq.Properties{mq.User("a", "1"), mq.User("a", "1")}})
	})
	t.Run("packet cut into single bytes", func(t *testing.T) {
		c := mq.Dial(t, addr, v5)
		for _, b := range join(clean(name(t)).Encode(v5), mq.Ping) {
			c.Send(mq.Raw{b})
		}
		c.Expect(mq.CONNACK)
		c.Expect(mq.PINGRESP)
	})
	t.Run("packets joined in one write", func(t *testing.T) {
		c := mq.Dial(t, addr, v5)
		c.Send(clean(name(t)), mq.Subscribe{ID: 1, Filters: []mq.Filter{{Filter: name(t)}}}, mq.Ping, mq.Ping)
		c.Expect(mq.CONNACK)
		c.ExpectID(mq.SUBACK, 1)
		c.Expect(mq.PINGRESP)
		c.Expect(mq.PINGRESP)
	})
	t.Run("Message Expiry 0 is delivered at once or never", func(t *testing.T) {
		// A broker that cannot tell 0 from absent retains it for ever.
		c := mq.Open(t, addr, v5, clean(name(t)))
		c.Subscribe(name(t), 1)
		c.PublishMessage(mq.Publish{Topic: name(t), QoS: 1, Retain: true, Properties: mq.Properties{mq.Number(mq.PropMessageExpiry, 0)}, Payload: []byte("now")})
		c.Publish(name(t), 1, "mark")
		if p := c.Receive(); string(p.Payload) == "now" {
			c.ReceiveText(name(t), "mark")
		} else if string(p.Payload) != "mark" {
			t.Errorf("got %v", p)
		}
		late := mq.Open(t, addr, v5, clean(name(t, "late")))
		late.Subscribe(name(t), 1)
		late.Quiet()
	})
}
