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
