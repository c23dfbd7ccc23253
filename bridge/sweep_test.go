package bridge

import (
	"bufio"
	"context"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bellwire/bellwire/internal/bubble"
)

// sweeping returns a bridge whose session here is new, of a peer that has one from before. What
// the peer is sent after CONNECT it answers with what answer returns, each second.
func sweeping(t *testing.T, answer []byte) *Bridge {
	return New(Config{
		Name: "b", Addresses: []string{"peer"}, Version: 5, Client: "b", KeepAlive: time.Minute, Window: 10, MaxPacket: 1 << 10,
		AckTimeout: time.Minute, RetryMax: time.Second, Origin: "o",
		Dial: func(context.Context, string) (net.Conn, error) {
			here, there := net.Pipe()
			go func() {
				defer there.Close()
				r := bufio.NewReader(there)
				first := make([]byte, 2)
				if _, err := r.Read(first); err != nil {
					return
				}
				if _, err := r.Discard(int(first[1])); err != nil {
					t.Error(err)
				}
				go func() { _, _ = r.WriteTo(discard{}) }()
				_, err := there.Write([]byte{typeConnack << 4, 3, 1, 0, 0})
				for err == nil {
					_, err = there.Write(answer)
					<-time.After(time.Second)
				}
			}()
			return here, nil
		},
		Session: func() Session { return Session{} },
		Levels:  nil, Lead: func() bool { return true }, Confirm: func(context.Context) bool { return true },
		Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// A peer that says something all the time, and does not release packet ids, is given up
// when it has owed that for as long as it may owe anything; and a bridge that is to end meanwhile does.
func TestSweepOfAPeerThatTalks(t *testing.T) {
	talk := []byte{typePublish << 4, 4, 0, 1, 'a', 0}
	bubble.Test(t, func(t *testing.T) {
		b := sweeping(t, talk)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); b.Run(ctx) }()
		<-time.After(30 * time.Second)
		cancel()
		synctest.Wait()
		select {
		case <-ended:
		default:
			t.Fatal("it goes on, though it is to end")
		}
		<-time.After(2 * time.Second) // the peer sees it
	})
	bubble.Test(t, func(t *testing.T) {
		b := sweeping(t, talk)
		ctx, cancel := context.WithCancel(t.Context())
		go b.Run(ctx)
		<-time.After(75 * time.Second)
		if n := b.Stats().Failed(FailTimeout); n != 1 {
			t.Errorf("given up %d times, want once", n)
		}
		cancel()
		<-time.After(2 * time.Second)
	})
}

// Who waits for a bridge's session waits no longer than it means to, whatever our own broker does.
func TestPrepareEndsInTime(t *testing.T) {
	for what, answer := range map[string][]byte{"no CONNACK": nil, "no SUBACK": {typeConnack << 4, 3, 0, 0, 0}} {
		t.Run(what, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				b := sweeping(t, nil)
				b.outs = waysOf([]Topic{{Filter: "#", Direction: Out, QoS: 1}}, Out)
				b.c.Local = func(context.Context) (net.Conn, error) {
					here, there := net.Pipe()
					go func() {
						defer there.Close()
						go func() { _, _ = there.Write(answer) }()
						_, _ = bufio.NewReader(there).WriteTo(discard{})
					}()
					return here, nil
				}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				began := time.Now()
				ended := make(chan struct{})
				go func() { defer close(ended); _ = b.Prepare(ctx) }()
				select {
				case <-ended:
				case <-time.After(time.Hour):
					t.Fatal("it waits for ever")
				}
				if took := time.Since(began); took > 5*time.Second+leaveTime {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}
