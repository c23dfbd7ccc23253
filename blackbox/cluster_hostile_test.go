package blackbox

import (
	"crypto/tls"
	be "encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/cluster/certs"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// A stranger is somebody at the cluster's port who does not belong there.
type stranger struct {
	name string
	say  func(t *testing.T, addr string)
	log  []string // what the node's line about it says: why, and what to do
}

// Whoever is not of the cluster and comes to its port, under load, is told no, and
// the operator is told who it was, why, and what to do. Nobody else notices: no
// client loses its connection, and who leads goes on leading.
//
// Item 62.
func TestClusterStrangers(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	ours, err := certs.LoadAuthority(filepath.Join(filepath.Dir(c.policy), "ca"))
	if err != nil {
		t.Fatal(err)
	}
	others, err := certs.NewAuthority(time.Now(), 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	of := func(a *certs.Authority, name string, from time.Time) *tls.Config { return shows(t, a, name, from) }
	rng := rand.New(rand.NewPCG(1, 47))
	garbage := make([]byte, 8192)
	for i := range garbage {
		garbage[i] = byte(rng.Uint32())
	}
	now := time.Now()
	member := of(ours, "n9", now)
	strangers := []stranger{
		{"garbage", sends(garbage), []string{"does not speak TLS", "is it the cluster's port?"}},
		{"HTTP", sends([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")), []string{"does not speak TLS"}},
		{"no certificate", handshakes(&tls.Config{InsecureSkipVerify: true, NextProtos: member.NextProtos}, nil), []string{"shows no certificate", "bellwire cert node"}},
		{"an old TLS", handshakes(&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}, nil), []string{"older TLS"}},
		{"another authority", handshakes(of(others, "n2", now), nil), []string{"authority that this node does not trust", "bellwire cert node --ca"}},
		{"expired", handshakes(of(ours, "n2", now.Add(-48*time.Hour)), nil), []string{"has expired", "bellwire cert node --force"}},
		{"another cluster", handshakes(member, hello("n9", "00000000-0000-0000-0000-000000000000")), []string{"other-cluster", "00000000-0000-0000-0000-000000000000"}},
		{"another name than its certificate's", handshakes(member, hello("n2", c.cluster())), []string{"other-name", "n9"}},
		{"no member", handshakes(member, hello("n9", c.cluster())), []string{"no-member"}},
		{"garbage of one with a certificate", handshakes(member, garbage), []string{"connection refused"}},
		{"half a hello of one with a certificate", handshakes(member, hello("n9", c.cluster())[:40]), []string{"connection refused"}},
	}
	l := c.load()
	l.start()
	attempts(t, func(try *attempt) {
		l.await(clusterRate())
		lead := c.leader()
		clients := l.connections()
		for _, s := range strangers {
			for i, n := range c.nodes {
				before := len(n.logs.String())
				for range 3 {
					s.say(t, n.ready.Cluster)
				}
				until(t, fmt.Sprintf("node %d tells of %s", i, s.name), patience, func() bool {
					return tells(n.logs.String()[before:], s.log)
				})
			}
		}
		l.await(clusterRate())
		// A leader that has to wait for a processor is replaced, whoever else is there.
		if now := c.leader(); now != lead {
			try.spoil("node %d leads, it was %d", now, lead)
			return
		}
		for id, conn := range l.connections() {
			if clients[id] != conn {
				t.Errorf("%s lost its connection", id)
			}
		}
	})
	l.finish()
	c.alike()
}

// connections are the newest of all clients.
func (l *load) connections() map[string]*mq.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.conns)
}

// tells says whether a line of a log has all of this, and says from whom it was.
func tells(log string, all []string) bool {
lines:
	for line := range strings.Lines(log) {
		for _, part := range append(all, "127.") {
			if !strings.Contains(line, part) {
				continue lines
			}
		}
		return true
	}
	return false
}

// sends says something and waits for the end.
func sends(bytes []byte) func(*testing.T, string) {
	return func(t *testing.T, addr string) {
		t.Helper()
		nc, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_, _ = nc.Write(bytes)
		ends(t, nc)
	}
}

// handshakes speaks TLS, says something if it comes to that, and waits for the end.
func handshakes(config *tls.Config, bytes []byte) func(*testing.T, string) {
	return func(t *testing.T, addr string) {
		t.Helper()
		nc, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		c := tls.Client(nc, config)
		if c.Handshake() != nil {
			return
		}
		_, _ = c.Write(bytes)
		_ = c.CloseWrite()
		ends(t, c)
	}
}

// shows is how one dials a node with a certificate for name that is good for an hour.
func shows(t *testing.T, a *certs.Authority, name string, from time.Time) *tls.Config {
	t.Helper()
	pair, err := a.Issue(name, nil, from, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	// It is the node that has to look at who comes: these look at nothing, and show
	// what it does not want.
	show := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	return &tls.Config{GetClientCertificate: show, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{"bellwire-cluster/1"}}
}

// ends wants the other side to end the connection.
func ends(t *testing.T, nc net.Conn) {
	t.Helper()
	if err := nc.SetReadDeadline(time.Now().Add(2 * patience)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, nc)
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		t.Errorf("the connection was left open")
	}
}

// hello is how a node begins, see cluster/link.
func hello(name, cluster string) []byte { return helloTo(name, cluster, nil) }

// helloTo is hello of one that looks for a member of its cluster.
func helloTo(name, cluster string, wanted map[string]any) []byte {
	h := map[string]any{
		"version": 1, "cluster": cluster, "plane": 1,
		"self": map[string]any{"id": "11111111-1111-1111-1111-111111111111", "name": name, "address": "127.0.0.1:1"},
	}
	if wanted != nil {
		h["to"], h["members"] = wanted["id"], []any{wanted}
	}
	text, err := json.Marshal(h)
	if err != nil {
		panic(err)
	}
	return append(be.BigEndian.AppendUint32([]byte("bellwire"), uint32(len(text))), text...)
}
