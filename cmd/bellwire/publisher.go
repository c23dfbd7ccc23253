package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session"
	"github.com/eclipse/paho.golang/paho/session/state"

	"github.com/bellwire/bellwire/bw"
)

// A publisher sends messages on one connection, in the order of its calls,
// with a bounded number of them unacknowledged.
//
// paho offers to publish and wait, which is one at a time, or to publish and
// forget. Here each acknowledgement has a channel, the channels stand in the
// order of the messages, and one goroutine collects them. publish and finish
// are called from one goroutine.
type publisher struct {
	client *client
	state  *trackedState
	slots  chan struct{}   // full: as many on their way as may be
	acks   chan pendingAck // cap as slots; closed by finish
	result chan outcome    // takes one, when acks is closed and empty
}

type pendingAck struct {
	topic  string
	packet <-chan packets.ControlPacket
}

// An outcome is what became of all messages of a publisher.
type outcome struct {
	sent, acknowledged int // QoS 0 counts as acknowledged when it is written
	unknown            int // sent, and the connection ended first
	refusals           []refusalCount
	answer             []packets.User // of the last PUBACK
}

type refusalCount struct {
	fault *fault
	count int
}

// trackedState is paho's session with the channel of the next PUBLISH in our
// hands.
type trackedState struct {
	*state.State
	next chan packets.ControlPacket
}

func (s *trackedState) AddToSession(ctx context.Context, p session.Packet, resp chan<- packets.ControlPacket) error {
	if p.Type() == packets.PUBLISH {
		resp = s.next
	}
	return s.State.AddToSession(ctx, p, resp)
}

// newPublisher connects. inFlight is how many messages may wait for their
// acknowledgement; the server's Receive Maximum bounds them too.
func newPublisher(ctx context.Context, to target, packet *paho.Connect, inFlight int, debug io.Writer) (*publisher, error) {
	p := &publisher{
		state:  &trackedState{State: state.NewInMemory()},
		slots:  make(chan struct{}, inFlight),
		acks:   make(chan pendingAck, inFlight),
		result: make(chan outcome, 1),
	}
	nothing := func(paho.PublishReceived) (bool, error) { return true, nil } // nobody subscribed
	var err error
	if p.client, err = connect(ctx, to, packet, p.state, nothing, debug); err != nil {
		return nil, err
	}
	go p.collect()
	return p, nil
}

// publish sends m, and waits for a free place before it does. An error means
// that nothing more can be sent, and is explained by finish.
func (p *publisher) publish(ctx context.Context, m *paho.Publish) error {
	if limit := p.client.connack.Properties.MaximumPacketSize; limit != nil {
		// The fixed header, a packet id and an empty property list: 8 bytes.
		if size := len(m.Topic) + len(m.Payload) + 8; size > int(*limit) {
			return fail(bw.Limit, "a message of %d bytes: the server takes packets of at most %d", len(m.Payload), *limit)
		}
	}
	select {
	case p.slots <- struct{}{}:
	case <-p.client.Done():
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	if m.QoS == 0 {
		// It has its place among the others, so that it is not counted as
		// delivered before they are.
		done := make(chan packets.ControlPacket, 1)
		if _, err := p.client.Publish(ctx, m); err != nil {
			return err
		}
		done <- packets.ControlPacket{FixedHeader: packets.FixedHeader{Type: packets.PUBLISH}}
		p.acks <- pendingAck{m.Topic, done}
		return nil
	}
	ack := make(chan packets.ControlPacket, 1)
	p.state.next = ack
	_, err := p.client.PublishWithOptions(ctx, m, paho.PublishOptions{Method: paho.PublishMethod_AsyncSend})
	if err != nil && !errors.Is(err, paho.ErrNetworkErrorAfterStored) {
		return err
	}
	p.acks <- pendingAck{m.Topic, ack}
	return err
}

// settle waits until everything sent is acknowledged, the connection has ended,
// or ctx has. It is called from the goroutine that publishes.
func (p *publisher) settle(ctx context.Context) {
	taken := 0
	defer func() {
		for range taken {
			<-p.slots
		}
	}()
	for range cap(p.slots) {
		select {
		case p.slots <- struct{}{}:
			taken++
		case <-p.client.Done():
			return
		case <-ctx.Done():
			return
		}
	}
}

// errEnded says that the connection is gone; the client's lost channel says
// why.
var errEnded = errors.New("the connection has ended")

func (p *publisher) collect() {
	var o outcome
	for pending := range p.acks {
		o.sent++
		select {
		case ack := <-pending.packet:
			o.count(pending.topic, ack)
		case <-p.client.Done():
			select { // it may have come before the end
			case ack := <-pending.packet:
				o.count(pending.topic, ack)
			default:
				o.unknown++
			}
		}
		<-p.slots
	}
	p.result <- o
}

func (o *outcome) count(topic string, ack packets.ControlPacket) {
	number, text := byte(0), ""
	switch c := ack.Content.(type) {
	case *packets.Puback:
		number, text, o.answer = c.ReasonCode, c.Properties.ReasonString, c.Properties.User
	case *packets.Pubrec: // only one that refuses ends up here
		number, text = c.ReasonCode, c.Properties.ReasonString
	case *packets.Pubcomp:
	default:
		if ack.Type != packets.PUBLISH { // paho shut down
			o.unknown++
			return
		}
	}
	if number < 0x80 {
		o.acknowledged++
		return
	}
	f := refusal("publish to "+topic+" refused", number, text)
	for i := range o.refusals {
		if o.refusals[i].fault.what == f.what {
			o.refusals[i].count++
			return
		}
	}
	if len(o.refusals) < maxReasons {
		o.refusals = append(o.refusals, refusalCount{f, 1})
		return
	}
	o.refusals[maxReasons-1].count++ // counted with the last one we show
}

// maxReasons bounds how many different refusals are told apart.
const maxReasons = 20

// finish waits until everything sent is acknowledged or the connection has
// ended, disconnects, and says what became of it all. ctx cuts the wait short.
func (p *publisher) finish(ctx context.Context, bye *paho.Disconnect) (outcome, error) {
	close(p.acks)
	var o outcome
	collected := false
	select {
	case o = <-p.result:
		collected = true
	case <-ctx.Done():
	}
	var lost error
	select {
	case lost = <-p.client.lost:
	case <-p.client.Done():
		lost = <-p.client.lost
	default:
		lost = ctx.Err()
		if err := p.client.close(context.Background(), bye); err != nil && lost == nil {
			lost = fail(bw.Lost, "the connection broke: %w", plain(err))
		}
	}
	if !collected {
		o = <-p.result // the connection is gone: nothing keeps collect
	}
	return o, lost
}

// verdict turns an outcome into the error that the verb ends with, and prints
// what does not fit into one.
func (o outcome) verdict(stderr io.Writer, lost error) error {
	refused := 0
	for _, r := range o.refusals {
		refused += r.count
	}
	if lost != nil {
		f, ok := errors.AsType[*fault](lost)
		if !ok {
			return lost
		}
		if o.sent > 1 {
			f = fail(f.code, "%w; of %d messages %d were acknowledged, %d refused, %d have an unknown fate",
				f, o.sent, o.acknowledged, refused, o.unknown)
		}
		return f
	}
	switch {
	case refused == 0 && o.unknown == 0:
		return nil
	case refused == 0:
		return fail(bw.Lost, "of %d messages %d were acknowledged, %d have an unknown fate", o.sent, o.acknowledged, o.unknown)
	case o.sent == 1:
		return o.refusals[0].fault
	case refused == o.sent:
		first := o.refusals[0].fault
		return &fault{code: first.code, what: fmt.Sprintf("all %d messages refused: %s", refused, first.what), todo: first.todo}
	}
	for _, r := range o.refusals {
		fmt.Fprintf(stderr, "%7d × %s     %s\n", r.count, r.fault.what, r.fault.code)
	}
	return fail(bw.SomeRefused, "%d of %d messages refused, %d acknowledged", refused, o.sent, o.acknowledged)
}
