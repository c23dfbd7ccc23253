package brokertest

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/internal/effort"
)

// A Suite is a profile, and what has to be known to test it.
type Suite struct {
	// New makes the profile.
	New func() broker.Profile

	// Owners publish, and everybody watches them: themselves, each other, and
	// the Watchers, who own nothing. Give it two or three of each.
	Owners, Watchers []string

	// Topic is that of an owner's resource: kind/example.com/bob.
	Topic func(owner string) string

	// Publish makes up something that an owner publishes. It need not be
	// acceptable. Give it few words to choose from, so that sources agree,
	// contradict and replace each other.
	Publish func(owner string) *rapid.Generator[Publication]

	// Policy makes up what an owner permits: acceptable documents without
	// delegates.
	Policy func(owner string) *rapid.Generator[Policy]

	// Blind makes up policies by which the Watchers are shown nothing, each for
	// some reason or other: not now, or not ever.
	Blind func(owner string) *rapid.Generator[Policy]

	// Default is the policy of an owner who has not set one.
	Default func(owner string) Policy
}

// A Publication is something to be published.
type Publication struct {
	Topic, ContentType, Payload string
	Retain                      bool
	Properties                  [][2]string // User Properties: names and values
}

// A Policy is what an owner permits: as the document that is published to
// $me/policy/ and the prefix, and as what it means.
type Policy struct {
	Document string // empty: the owner has none any more, and the default counts

	// Permits returns what of a document a watcher is not to be shown at that
	// instant, nil if nothing. It has to know that by itself: to ask the
	// profile, or what the profile asks, would be to test it against itself.
	Permits func(watcher string, at time.Time, payload string) error
}

// GoString is how failures print a policy.
func (p Policy) GoString() string { return p.Document }

// TestProfile has owners and watchers do what clients do, at random: connect,
// go, be cut off, take each other over, publish, permit, watch, fall behind,
// while time passes and the node dies. It fails if
//
//   - a watcher is sent something that the owner does not permit then,
//   - what watchers were sent last is not what they are shown who come new,
//   - somebody publishes for another,
//   - what one is not shown leaves a trace: a watcher who may see nothing is
//     sent something else, or at another time, if the owner does something,
//   - replaying the log, or the rest of it onto a copy taken on the way, leads
//     to another state, or
//   - a command makes the machine panic.
//
// Failures are shrunk. A seed is a few histories.
func TestProfile(t *testing.T, s Suite) {
	t.Helper()
	checks := fmt.Sprint(effort.RoundsOfOne(2, 20, 20))
	for _, part := range []struct {
		name string
		run  func(t *rapid.T, s Suite)
	}{{"histories", histories}, {"silence", silence}} {
		t.Run(part.name, func(t *testing.T) {
			effort.Seeds(t, func(t *testing.T, seed uint64) {
				defer setFlags(t, map[string]string{"rapid.checks": checks, "rapid.seed": fmt.Sprint(seed)})()
				rapid.Check(t, func(t *rapid.T) { part.run(t, s) })
			})
		})
	}
}

// setFlags sets flags of package rapid that were not set by who runs the tests,
// and returns what sets them back.
func setFlags(t *testing.T, values map[string]string) (back func()) {
	t.Helper()
	given := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	old := map[string]string{}
	for name, value := range values {
		f := flag.Lookup(name)
		if f == nil {
			t.Fatalf("package rapid has no flag %s any more", name)
		}
		if given[name] {
			continue
		}
		old[name] = f.Value.String()
		if err := f.Value.Set(value); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		for name, value := range old {
			if err := flag.Lookup(name).Value.Set(value); err != nil {
				t.Error(err)
			}
		}
	}
}

// publish publishes p, and returns what became of it.
func (p *Publication) publish(c *Client) error {
	var with []PublishOption
	if p.ContentType != "" {
		with = append(with, ContentType(p.ContentType))
	}
	if p.Retain {
		with = append(with, Retain)
	}
	for _, u := range p.Properties {
		with = append(with, Property(u[0], u[1]))
	}
	return c.TryPublish(p.Topic, p.Payload, with...)
}

// ownPolicy is where owners publish what they permit.
func (s *Suite) ownPolicy() string {
	return "$me/policy/" + s.New().Prefix()
}

// ownerOf returns whose resource a topic is, empty for nobody's.
func (s *Suite) ownerOf(topic string) string {
	for _, owner := range s.Owners {
		if s.Topic(owner) == topic {
			return owner
		}
	}
	return ""
}

// filters are those that watch the resources, or some of them.
func (s *Suite) filters() []string {
	var all []string
	for _, owner := range s.Owners {
		all = append(all, s.Topic(owner))
	}
	domain := all[0][:strings.LastIndexByte(all[0], '/')]
	return append(all, domain+"/+", s.New().Prefix()+"/#", "#")
}
