package main

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/authn"
	"github.com/bellwire/bellwire/bridge"
	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/mqtt"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// A bridge's principal and client id are its own: nobody comes in with them by what a tenant, a
// certificate or nobody says; whom the operator's file gives a password may. A tenant is told so
// when it puts such a user in force.
func TestBridgeIsNobodyElse(t *testing.T) {
	const secret = "bw_dev_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	verifier, err := authn.HashScram([]byte("pencil"), acl.MinIterations, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := testConfig(t, filepath.Join(t.TempDir(), "data"))
	c.trust = trustNobody
	for _, name := range []string{"plant", "shared"} {
		c.bridges = append(c.bridges, bridgeSpec{option: name, Config: bridge.Config{
			Name: name, Addresses: []string{"127.0.0.1:1"}, Version: 5, Window: 1, MaxHops: 1, AckTimeout: time.Minute, RetryMax: time.Hour, KeepAlive: time.Minute,
			Topics: []bridge.Topic{{Filter: "out/#", Direction: bridge.Out}},
		}})
	}
	c.policy, c.policyName = []byte(`
users:
  bridge-shared: {token_sha256: `+acl.HashToken([]byte(secret))+`}
logins:
  - {listeners: [tls], by: [certificate, token, scram]}
rules:
  - {id: bridges, allow: [publish, subscribe], who: ["*@example.com"], topic: ["out/#"]}
tenants:
  - {domain: example.com}
`), "policy.yaml"
	s := runServer(t, c)
	part := func(user string) []byte {
		return fmt.Appendf(nil, "users: {%s: {token_sha256: %s, scram_sha256: %q}}\n", user, acl.HashToken([]byte(secret)), verifier)
	}
	_, err = domains{s}.PutPolicy(t.Context(), "example.com", api.PolicyChange{Data: part("bridge-plant"), Dry: true})
	var faults *api.PolicyFaults
	if !errors.As(err, &faults) || !strings.Contains(fmt.Sprint(faults.Faults), "bridge-plant@example.com is the operator's to say") {
		t.Errorf("a tenant's user by the name of a bridge: %v", err)
	}
	// One that was there before the bridge.
	if _, err := s.broker.PutPart(t.Context(), broker.PartChange{Domain: "example.com", Data: part("bridge-plant")}); err != nil {
		t.Fatal(err)
	}
	ours, l := newAuthority(t), new(net.TCPListener)
	if l, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	good := time.Now().Add(time.Hour)
	go func() {
		_ = s.mqtt.ServeAs(l, mqtt.Listener{Name: "tls", Anonymous: true, TLS: &tls.Config{
			Certificates: []tls.Certificate{ours.issue("server", good)}, ClientCAs: ours.pool, ClientAuth: tls.VerifyClientCertIfGiven,
		}})
	}()
	cert := ours.issue("bridge-plant", good)
	for _, c := range []struct {
		user, password, client string
		certified              bool
		want                   byte
	}{
		{"bridge-plant", secret, "c1", false, 0x86},
		{"bridge-plant", "SCRAM", "c2", false, 0x86},
		{"", "", "c3", true, 0x86},
		{"bridge-shared", secret, "c4", false, 0},
		{"", "", "bridge/plant", false, 0x85},
		{"bridge-shared", secret, "bridge/shared", false, 0x85},
		{"", "", "bridge/else", false, 0},
	} {
		conf := &tls.Config{RootCAs: ours.pool, ServerName: "localhost"}
		if c.certified {
			conf.Certificates = []tls.Certificate{cert}
		}
		nc, err := tls.Dial("tcp", l.Addr().String(), conf)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		conn, m := mq.NewConn(nc, 5), mq.Connect{ClientID: c.client, Clean: true, User: c.user, NoUser: c.user == ""}
		var p *mq.Packet
		if c.password == "SCRAM" {
			m.User, m.NoUser = "", true
			p, err = conn.Authenticate(m, &mq.Scram{User: c.user, Password: "pencil"}, false)
		} else {
			if c.password != "" {
				m.Password = []byte(c.password)
			}
			if err = conn.Write(m); err == nil {
				p, err = conn.Read(mq.Patience)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if p.Code != c.want {
			t.Errorf("user %q with %.8q as client %s: %#02x, want %#02x", c.user, c.password, c.client, p.Code, c.want)
		}
	}
	if _, known := s.broker.Stored("bridge/plant"); !known {
		t.Error("the bridge has no session")
	}
}
