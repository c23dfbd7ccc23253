package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/authn"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/internal/bubble"
)

// Who has a verifier alone uses all verbs with --scram, which send neither name nor password
// in CONNECT; without it they are told of it. What is wrong is told in words.
func TestVerbsProveByScram(t *testing.T) {
	t.Parallel()
	verifier, err := authn.HashScram([]byte("pencil"), acl.MinIterations, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const rules = "rules:\n  - {id: all, allow: [publish, subscribe], who: [\"*@example.com\"], topic: [\"t/#\"]}\n"
	serving := func(policy string) *server {
		c := testConfig(t, filepath.Join(t.TempDir(), "data"))
		c.trust, c.allowAnonymous, c.domain, c.policy, c.policyName = trustNobody, false, "example.com", []byte(policy+rules), "policy.yaml"
		return runServer(t, c)
	}
	tom := "users:\n  tom: {token_sha256: " + acl.HashToken([]byte("x")) + "}\n"
	s, none := serving(fmt.Sprintf("%s  sam: {scram_sha256: %q}\n", tom, verifier)), serving(tom)
	for _, c := range []struct {
		at   *server
		args string
		code int
		says string
	}{
		{s, "pub -u sam -P pencil --scram -t t/a -m kept -r -q 1", 0, ""},
		{s, "sub -u sam -P pencil --scram -t t/a -C 1", 0, "kept"},
		{s, "presence set open -u sam@example.com -P pencil --scram --note here", 0, ""},
		{s, "presence watch sam -u sam@example.com -P pencil --scram -C 1", 0, "here"},
		{s, "blocklist add bo@example.net -u sam@example.com -P pencil --scram", 0, ""},
		{s, "blocklist ls -u sam@example.com -P pencil --scram", 0, "bo@example.net"},
		{s, "pub -u sam -P pencil -t t/a -m x", exitDenied, "(scram_sha256) adds --scram     BW-4002"},
		{s, "pub -u sam -P Pencil --scram -t t/a -m x", exitDenied, "bad user name or password"},
		{s, "pub -u nobody -P pencil --scram -t t/a -m x", exitDenied, "bad user name or password"},
		{none, "pub -u tom -P x --scram -t t/a -m x", exitDenied, "go without --scram"},
		{s, "pub --scram -t t/a -m x", exitUsage, "--scram proves a password"},
		{s, "pub -u sam --scram -t t/a -m x", exitUsage, "--scram proves a password"},
		{s, "pub -u sam -P p -t t/a -m x --scram -D connect authentication-method X", exitUsage, "--scram is an authentication method"},
		{s, "pub -u sam -P \x07 -t t/a -m x --scram", exitUsage, "characters that none may have"},
	} {
		host, port, _ := net.SplitHostPort(c.at.mqttListener.Addr().String())
		args := append(strings.Split(c.args, " "), "-h", host, "-p", port)
		got := bellwire(t, "", args...)
		if got.code != c.code || !strings.Contains(got.stdout+got.stderr, c.says) {
			t.Errorf("%s: %+v, want %d and %q", c.args, got, c.code, c.says)
		}
	}
}

// A server that lets somebody in and does not prove that it knows them is left, and nothing that
// it sends is taken; so is one that asks for a proof that nobody has begun.
func TestServerHasToProveItself(t *testing.T) {
	auth := func(method, data string) *packets.Auth {
		return &packets.Auth{ReasonCode: 0x18, Properties: &packets.Properties{AuthMethod: method, AuthData: []byte(data)}}
	}
	in := func(data string) *packets.Connack {
		return &packets.Connack{Properties: &packets.Properties{AuthMethod: authn.Scram, AuthData: []byte(data)}}
	}
	challenge := func(nonce string) *packets.Auth {
		return auth(authn.Scram, "r="+nonce+"x,s=QSXCR+Q6sek8bf92,i=4096")
	}
	for _, c := range []struct {
		name  string
		scram bool
		talk  func(c net.Conn, nonce string, next func())
		says  string
	}{
		{"no method", true, func(c net.Conn, _ string, _ func()) { send(c, &packets.Connack{Properties: &packets.Properties{}}) }, "is not by SCRAM-SHA-256"},
		{"at once", true, func(c net.Conn, _ string, _ func()) { send(c, in("")) }, "does not prove"},
		{"without a signature", true, func(c net.Conn, nonce string, next func()) { send(c, challenge(nonce)); next(); send(c, in("")) }, "does not prove"},
		{"by another's", true, func(c net.Conn, nonce string, next func()) {
			send(c, challenge(nonce))
			next()
			send(c, in("v="+strings.Repeat("A", 43)+"="))
		}, "server validation failed"},
		{"another nonce", true, func(c net.Conn, _ string, _ func()) { send(c, challenge("another")) }, "does not prove"},
		{"another method", true, func(c net.Conn, nonce string, _ func()) { send(c, auth("PLAIN", "")) }, `another method, "PLAIN"`},
		{"unasked", false, func(c net.Conn, _ string, _ func()) { send(c, auth("PLAIN", "")) }, "which nobody has asked for"},
	} {
		bubble.Test(t, func(t *testing.T) {
			to := dialTo(func(conn net.Conn) {
				p := receivePacket(t, conn)
				connect := p.Content.(*packets.Connect)
				if connect.UsernameFlag || connect.PasswordFlag {
					t.Errorf("%s: the CONNECT has a name, or a password", c.name)
				}
				_, nonce, _ := strings.Cut(string(connect.Properties.AuthData), "r=")
				c.talk(conn, nonce, func() { receivePacket(t, conn) })
				send(conn, &packets.Publish{Topic: "a", Payload: []byte("forged"), Properties: &packets.Properties{}})
				for receivePacket(t, conn) != nil {
				}
			})
			if c.scram {
				to.scram = &secret{"sam", "pencil"}
			}
			k, err := connect(t.Context(), to, &paho.Connect{CleanStart: true, Properties: &paho.ConnectProperties{}}, state.NewInMemory(), func(p paho.PublishReceived) (bool, error) {
				t.Errorf("%s: %q is taken", c.name, p.Packet.Payload)
				return true, nil
			}, nil)
			f, is := errors.AsType[*fault](err)
			if !is || k != nil || f.code != bw.NoAnswer || !strings.Contains(f.Error(), c.says) {
				t.Errorf("%s: %v, want %q", c.name, err, c.says)
			}
		})
	}
}
