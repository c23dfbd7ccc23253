package blackbox

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// An overheard is a connection that remembers all that came over it.
type overheard struct {
	net.Conn
	t   testing.TB
	all []byte
}

func (o *overheard) Read(b []byte) (int, error) {
	n, err := o.Conn.Read(b)
	o.all = append(o.all, b[:n]...)
	return n, err
}

// until receives until that has come.
func (o *overheard) until(c *mq.Client, text string) {
	o.t.Helper()
	for !strings.Contains(string(o.all), text) {
		p := c.Arrives(patience)
		if p == nil {
			o.t.Fatalf("%s was not sent", text)
		}
		c.Acknowledge(p)
	}
}

// heard connects a client of somebody from an address of this machine.
func (s *server) heard(who, from string) (*mq.Client, *overheard) {
	s.t.Helper()
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	nc, err := d.Dial("tcp", s.ready.MQTT)
	if err != nil {
		s.t.Skipf("missing: %s as an address of this machine, ip addr add %s/8 dev lo: %v", from, from, err)
	}
	o := &overheard{Conn: nc, t: s.t}
	c := mq.Wrap(s.t, mq.NewConn(o, v5))
	c.Connect(as(who, clean(who+"/heard")))
	return c, o
}

// formOf returns in which of its forms a text has an IP address; empty: in none.
func formOf(text, ip string) string {
	raw := net.ParseIP(ip).To4()
	number := uint32(raw[0])<<24 | uint32(raw[1])<<16 | uint32(raw[2])<<8 | uint32(raw[3])
	for _, form := range []string{
		ip, string(raw), fmt.Sprintf("%d.%d.%d.%d", raw[3], raw[2], raw[1], raw[0]), fmt.Sprint(number), hex.EncodeToString(raw),
		fmt.Sprintf("%x:%x", number>>16, number&0xffff), strings.ReplaceAll(ip, ".", "-"), base64.RawStdEncoding.EncodeToString(raw), base64.RawStdEncoding.EncodeToString([]byte(ip)),
	} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(form)) {
			return form
		}
	}
	return ""
}
