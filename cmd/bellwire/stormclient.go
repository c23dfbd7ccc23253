package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

// stormKeepAlive is what clients ask for, in seconds.
const stormKeepAlive = 60

// A stormClient is one client. Its goroutine connects it, reads what it is sent, and has
// it come back; others break its connection, or ask it for a ping.
type stormClient struct {
	in *storming
	stormID
	rng   *rand.Rand
	cache tls.ClientSessionCache // of this client; nil if it does not resume

	// Guarded by in.mu.
	been     bool        // it was in, and has a session if it is to have one
	wave     *stormTally // in which it was let in last
	present  bool        // it is in
	answered bool        // and was answered, after all were in

	mu     sync.Mutex // guards the following
	conn   net.Conn   // nil while there is none
	raw    *net.TCPConn
	silent time.Duration // after which it asks whether the server is there
	broken bool          // we ended conn
}

// live is its life: in, until the connection ends, and again.
func (c *stormClient) live() {
	select {
	case c.in.places <- struct{}{}:
	case <-c.in.ctx.Done():
		return
	}
	in := c.comeBack(0)
	<-c.in.places
	for in {
		c.read()
		in = c.in.ctx.Err() == nil && c.comeBack(c.in.first)
	}
}

// comeBack tries until it is let in, each time after a pause of up to first, up to twice
// that and so on. It is false if the storm is over.
func (c *stormClient) comeBack(first time.Duration) bool {
	for pause := first; ; {
		if pause > 0 && !c.sleep(time.Duration(c.rng.Int64N(int64(pause)))) {
			return false
		}
		err := c.try()
		if err == nil {
			return true
		}
		if c.in.ctx.Err() != nil {
			return false
		}
		c.in.failed(err)
		pause = min(max(2*pause, c.in.first), c.in.most)
	}
}

func (c *stormClient) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.in.ctx.Done():
		return false
	}
}

// A connackRefusal is a CONNACK that does not let its client in.
type connackRefusal byte

func (r connackRefusal) Error() string { return fmt.Sprintf("0x%02X", byte(r)) }

// later says whether it is worth trying again: the server is unavailable, is busy, has too
// many, or is asked too fast (5.0 3.2.2.2).
func (r connackRefusal) later() bool { return r == 0x88 || r == 0x89 || r == 0x97 || r == 0x9F }

// note counts a try that failed.
func (t *stormTally) note(err error) {
	t.Tries++
	code, refused := errors.AsType[connackRefusal](err)
	_, unverified := errors.AsType[*tls.CertificateVerificationError](err)
	_, alerted := errors.AsType[tls.AlertError](err)
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	var late net.Error
	switch {
	case refused && code.later():
		t.Waits[code.Error()]++
	case refused:
		t.Refused[code.Error()]++
	case unverified || alerted || noTLS:
		t.BadTLS++
	case errors.As(err, &late) && late.Timeout(), errors.Is(err, context.DeadlineExceeded):
		t.TimedOut++
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EPIPE):
		t.Closed++
	default:
		t.Failed[plain(err).Error()]++
	}
}

// try is one try to get in.
func (c *stormClient) try() error {
	ctx, cancel := context.WithTimeout(c.in.ctx, c.in.to.timeout)
	defer cancel()
	began := time.Now()
	conn, raw, err := c.in.to.dialRaw(ctx, c.config())
	if err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline) // of a connection that is open
	ack, err := c.greet(conn)
	if err != nil {
		conn.Close()
		return err
	}
	took := time.Since(began)
	_ = conn.SetDeadline(time.Time{})
	alive := uint16(stormKeepAlive)
	if k := ack.Properties.ServerKeepAlive; k != nil {
		alive = *k
	}
	c.mu.Lock()
	c.conn, c.raw, c.broken, c.silent = conn, raw, false, time.Duration(alive)*time.Second/2
	c.mu.Unlock()
	if c.in.ctx.Err() != nil { // who ended the storm may not have seen conn
		conn.Close()
	}
	secure, _ := conn.(*tls.Conn)
	c.in.entered(c, took, ack.SessionPresent, secure != nil && secure.ConnectionState().DidResume)
	return nil
}

// config is that of the next connection; nil for plain TCP.
func (c *stormClient) config() *tls.Config {
	if c.in.to.tls == nil || !c.in.resume {
		return c.in.to.tls
	}
	if c.cache == nil {
		c.cache = tls.NewLRUClientSessionCache(1)
	}
	conf := c.in.to.tls.Clone()
	conf.ClientSessionCache = c.cache
	return conf
}

// greet sends CONNECT and reads CONNACK.
func (c *stormClient) greet(conn net.Conn) (*packets.Connack, error) {
	cp := packets.NewControlPacket(packets.CONNECT)
	p := cp.Content.(*packets.Connect)
	p.ClientID, p.KeepAlive = c.id, stormKeepAlive
	p.Username, p.UsernameFlag = c.user, c.user != ""
	p.Password, p.PasswordFlag = []byte(c.password), c.password != ""
	p.Properties.SessionExpiryInterval = &c.in.keep
	p.CleanStart = c.in.keep == 0 || !c.wasIn()
	var b bytes.Buffer // so that it goes in one piece
	if _, err := cp.WriteTo(&b); err != nil {
		return nil, err
	}
	if _, err := conn.Write(b.Bytes()); err != nil {
		return nil, err
	}
	got, err := packets.ReadPacket(conn)
	if err != nil {
		return nil, err
	}
	ack, ok := got.Content.(*packets.Connack)
	if !ok {
		return nil, fmt.Errorf("packet type %d before CONNACK", got.Type)
	}
	if ack.ReasonCode != 0 {
		return nil, connackRefusal(ack.ReasonCode)
	}
	return ack, nil
}

func (c *stormClient) wasIn() bool {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	return c.been
}

// read takes what comes until the connection ends. After a silence it asks whether the
// server is there, within the keep alive.
func (c *stormClient) read() {
	c.mu.Lock()
	conn, silent := c.conn, c.silent
	c.mu.Unlock()
	for {
		if silent > 0 {
			_ = conn.SetReadDeadline(time.Now().Add(silent)) // of a connection that is open
		}
		got, err := packets.ReadPacket(conn)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			_, err = conn.Write(pingreq)
			got = nil
		}
		if err != nil {
			break
		}
		if got != nil && got.Type == packets.PINGRESP {
			c.in.answer(c)
		}
	}
	c.mu.Lock()
	broken := c.broken
	c.conn = nil
	c.mu.Unlock()
	conn.Close()
	if !broken && c.in.ctx.Err() == nil {
		c.in.lost(c)
	}
}

var pingreq = []byte{packets.PINGREQ << 4, 0}

// cut ends the connection without a word, with a reset if hard: as when the network, or
// what is between, breaks.
func (c *stormClient) cut(hard bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return
	}
	c.broken = true
	if c.raw == nil {
		c.conn.Close()
		return
	}
	if hard {
		_ = c.raw.SetLinger(0) // of a connection that is open
	}
	c.raw.Close()
}

func (c *stormClient) ping() {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn != nil {
		_, _ = conn.Write(pingreq) // who reads hears of the end
	}
}
