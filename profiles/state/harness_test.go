package state_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	_ "github.com/bellwire/bellwire/internal/fixedseed"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/presence"
	"github.com/bellwire/bellwire/profiles/state"
)

const (
	bob    = "bob@example.com"
	ann    = "ann@example.net"
	bobs   = "presence/example.com/bob"
	policy = "$me/policy/presence"
)

// quick are limits for sources that publish while the clock stands still.
var quick = state.Limits{SourceBurst: 1 << 20}

func presences() []broker.Profile {
	return []broker.Profile{state.NewWith(presence.New([]byte("key")), quick)}
}

func newNode(t *testing.T) *brokertest.Node {
	t.Helper()
	return brokertest.New(t, presences)
}

// open and closed are the shortest documents there are.
const (
	open   = `{"basic":"open"}`
	closed = `{"basic":"closed"}`
)

// everything is a policy that shows all of it to everybody who has an identity.
const everything = `{"v":1,"rules":[{"id":"all","if":{"identity":[{"many":{}}]},"then":{"handling":"allow"},` +
	`"show":{"services":["*"],"persons":["*"],"devices":["*"],"note":true,"all":true}}]}`

// neutral is what there is to see of somebody without publications.
func neutral(t *testing.T, principal string) string {
	t.Helper()
	k := presence.New([]byte("key"))
	return string(k.Encode(k.Neutral(kind.Resource{Kind: "presence", Addr: kind.Of(principal)})).Body)
}

// summary says what a document says, in a word: open, closed, or nothing.
func summary(t *testing.T, principal, document string) string {
	t.Helper()
	switch {
	case document == neutral(t, principal):
		return "nothing"
	case strings.Contains(document, `"basic":"open"`):
		return "open"
	case strings.Contains(document, `"basic":"closed"`):
		return "closed"
	}
	return document
}

// wants checks what a client was sent since it was last asked, in words.
func wants(t *testing.T, n *brokertest.Node, c *brokertest.Client, want ...string) {
	t.Helper()
	n.Settle()
	var got []string
	for _, g := range c.Take() {
		local := strings.TrimPrefix(g.Topic, "presence/example.com/")
		got = append(got, summary(t, local+"@example.com", g.Payload))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s was sent %v, want %v", c.Principal, got, want)
	}
}

// refuses checks that an error is the one that the client is told by that code.
func refuses(t *testing.T, err, cause error, words ...string) {
	t.Helper()
	var r *broker.Refusal
	if !errors.As(err, &r) {
		t.Errorf("got %v, want a refusal", err)
		return
	}
	if cause != nil && !errors.Is(err, cause) || cause == nil && r.Cause != nil {
		t.Errorf("got %v, want it to be for %v", err, cause)
	}
	for _, w := range words {
		if !strings.Contains(r.Reason, w) {
			t.Errorf("got %q, want %q in it", r.Reason, w)
		}
	}
}

func seconds(n int) brokertest.PublishOption {
	return brokertest.Property("evt-expires", fmt.Sprint(n))
}

func etag(tag string) brokertest.PublishOption { return brokertest.Property("evt-etag", tag) }

const aMoment = time.Nanosecond
