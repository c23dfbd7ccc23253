package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"

	"github.com/bellwire/bellwire/bw"
)

// A subscriber is one run of sub, over as many connections as it takes.
//
// Messages are printed and then acknowledged by one goroutine of paho's, which
// waits while the output is not read; then at most receiveAhead more leave the
// socket. After the last message that was asked for, nothing is acknowledged
// any more: what a session has in its queue stays there for the next sub.
type subscriber struct {
	flags  *subFlags
	target target
	packet *paho.Connect
	format formatter
	out    io.Writer
	notes  io.Writer
	now    func() time.Time

	done chan error // takes what ends the run: nil, or why not

	// Used by the goroutine that prints only.
	line     bytes.Buffer
	printed  int
	finished bool       // nothing is printed or acknowledged any more
	ending   *endReason // set by receive, told by Ack
	cleaner  *publisher // of --remove-retained; nil: not yet connected
}

type endReason struct{ err error }

// ackState is paho's session, asked by a subscriber what to acknowledge.
type ackState struct {
	*state.State
	sub *subscriber
}

// Ack is called after receive has returned, by the same goroutine.
func (s *ackState) Ack(m *packets.Publish) error {
	if s.sub.finished {
		return nil
	}
	var err error
	if m.QoS > 0 {
		err = s.State.Ack(m)
	}
	if end := s.sub.ending; end != nil {
		s.sub.finished = true
		s.sub.end(end.err)
	}
	return err
}

// end has the run end, and say why: the first reason is the one.
func (s *subscriber) end(why error) {
	select {
	case s.done <- why:
	default:
	}
}

const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

func (s *subscriber) run(ctx context.Context) error {
	state := &ackState{State: state.NewInMemory(), sub: s}
	c, n, err := s.connect(ctx, state, false)
	if err != nil {
		return err
	}
	var timeUp <-chan time.Time
	if s.flags.wait > 0 {
		timer := time.NewTimer(time.Duration(s.flags.wait) * time.Second)
		defer timer.Stop()
		timeUp = timer.C
	}
	for !s.flags.exitSubscribed {
		select {
		case err = <-s.done:
		case <-timeUp:
			err = fail(bw.TimedOut, "%d s are over", s.flags.wait)
		case <-ctx.Done():
			err = ctx.Err()
		case lost := <-c.lost:
			if c, err = s.again(ctx, state, timeUp, lost); err == nil {
				continue
			}
			return err
		}
		break
	}
	if bye := s.bye(ctx, c); err == nil && bye != nil {
		err = bye
	}
	if err == nil && n.refused > 0 {
		return fail(bw.SomeRefused, "%d of %d subscriptions were refused", n.refused, n.refused+n.granted)
	}
	return err
}

// bye ends the connection politely. Who waits for a blocked output, an
// interrupt or a time-out does not wait for the goroutine that prints.
func (s *subscriber) bye(ctx context.Context, c *client) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := c.close(ctx, s.flags.client.disconnectPacket()); err != nil || s.cleaner == nil {
		return nil // what was asked for has been done
	}
	o, lost := s.cleaner.finish(ctx, &paho.Disconnect{})
	return o.verdict(s.notes, lost)
}

// connect opens a connection and subscribes; when the session is still there
// after a break, so are its subscriptions.
func (s *subscriber) connect(ctx context.Context, state *ackState, again bool) (*client, subscriptionCount, error) {
	c, err := connect(ctx, s.target, s.packet, state, func(p paho.PublishReceived) (bool, error) {
		s.receive(ctx, p.Packet)
		return true, nil
	}, s.flags.client.debugTo(s.notes))
	if err != nil {
		return nil, subscriptionCount{}, err
	}
	if again && c.connack.SessionPresent {
		return c, subscriptionCount{}, nil
	}
	if again && s.flags.standing != nil {
		s.flags.standing.again()
	}
	n, err := s.flags.subscribe(ctx, c, s.notes)
	if err != nil {
		c.close(ctx, s.flags.client.disconnectPacket())
		return nil, n, err
	}
	if s.flags.standing != nil {
		if over, became := s.flags.standing.over(); over { // what was granted ended before it was known what was refused
			s.end(became)
		}
	}
	return c, n, nil
}

// again opens the connection that was lost, until it succeeds or there is a
// reason not to.
func (s *subscriber) again(ctx context.Context, state *ackState, timeUp <-chan time.Time, lost error) (*client, error) {
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		if f, ok := errors.AsType[*fault](lost); ok && !slices.Contains(worthRetrying, f.code) {
			return nil, lost
		}
		fmt.Fprintf(s.notes, "bellwire: %v; trying again in %s\n", lost, wait)
		select {
		case <-time.After(wait):
		case err := <-s.done: // printed meanwhile, from what had been read
			return nil, err
		case <-timeUp:
			return nil, fail(bw.TimedOut, "%d s are over, and the connection is lost", s.flags.wait)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		c, _, err := s.connect(ctx, state, true)
		if err == nil {
			fmt.Fprintf(s.notes, "bellwire: connected to %s again\n", s.target)
			return c, nil
		}
		lost = err
	}
}

var worthRetrying = []bw.Code{bw.Unreachable, bw.Busy, bw.Lost, bw.NoAnswer}

// receive prints one message. It blocks while the output does.
func (s *subscriber) receive(ctx context.Context, m *paho.Publish) {
	if s.finished || s.ending != nil {
		return
	}
	f := s.flags
	if f.standing != nil && strings.HasPrefix(m.Topic, ownSubscriptions) {
		f.standing.hear(m)
		if over, became := f.standing.over(); over {
			s.ending = &endReason{became}
		}
		return
	}
	if f.retainedOnly && !m.Retain {
		// It ends the run and is not acknowledged: nobody has seen it.
		s.finished = true
		s.end(nil)
		return
	}
	if f.filteredOut(m.Topic) {
		return
	}
	if f.removeRetained && m.Retain {
		if err := s.clear(ctx, m.Topic); err != nil {
			s.ending = &endReason{err}
			return
		}
	}
	if !f.prints(m) {
		return
	}
	s.line.Reset()
	if err := s.format(&s.line, m, s.now()); err != nil {
		fmt.Fprintf(s.notes, "bellwire: %v\n", err)
		s.line.Reset() // mosquitto_sub counts it and prints an empty line
	}
	if !f.noNewline {
		s.line.WriteByte('\n')
	}
	if _, err := s.out.Write(s.line.Bytes()); err != nil {
		// Not acknowledged: it was not delivered.
		s.finished = true
		s.end(fail(bw.File, "cannot write: %w", err))
		return
	}
	if s.printed++; s.printed == f.count {
		s.ending = &endReason{}
	}
}

// clear removes a retained message. It uses a connection of its own: on the
// one that receives, waiting for a free place would stop the very goroutine
// that has to read the acknowledgements.
func (s *subscriber) clear(ctx context.Context, name string) error {
	if s.cleaner == nil {
		packet := *s.packet
		packet.ClientID, packet.CleanStart, packet.WillMessage = "", true, nil
		packet.Properties = &paho.ConnectProperties{RequestProblemInfo: true}
		var err error
		if s.cleaner, err = newPublisher(ctx, s.target, &packet, 64, nil); err != nil {
			return err
		}
	}
	return s.cleaner.publish(ctx, &paho.Publish{Topic: name, QoS: 1, Retain: true})
}
