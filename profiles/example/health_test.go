package example_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/profiles/example"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/kind/kindtest"
	"github.com/bellwire/bellwire/profiles/state"
)

// documents makes up reports.
func documents(kind.Resource) *rapid.Generator[kind.Document] {
	return rapid.Custom(func(t *rapid.T) kind.Document {
		return kind.Document{ContentType: example.TypeJSON, Body: []byte(drawReport(t))}
	})
}

func drawReport(t *rapid.T) string {
	notes := rapid.SliceOfN(rapid.SampledFrom([]string{`"oil"`, `"belt"`, `"dust"`}), 0, 2).Draw(t, "notes")
	return fmt.Sprintf(`{"state":%q,"notes":[%s]}`, rapid.SampledFrom([]string{"ok", "degraded", "failed"}).Draw(t, "state"), strings.Join(notes, ","))
}

// Health obeys the laws of all kinds.
func TestLaws(t *testing.T) {
	h := example.Health{}
	r := kind.Resource{Kind: h.Name(), Addr: kind.Of("press12@plant.example.com")}
	text := func(v any) string { return string(h.Encode(&kind.Composed{Resource: r, Value: v}).Body) }
	kindtest.Test(t, kindtest.Suite{
		New:       func() kind.Kind { return example.Health{} },
		Documents: documents,
		Reveals: func(more, less any) string {
			for _, note := range []string{"oil", "belt", "dust"} {
				if strings.Contains(text(less), note) && !strings.Contains(text(more), note) {
					return note
				}
			}
			if !strings.Contains(text(less), "unknown") && strings.Contains(text(more), "unknown") {
				return "the state"
			}
			return ""
		},
		Same: func(parsed, composed any) bool { return text(parsed) == text(composed) },
	})
}

// Served, it keeps what every profile owes its owners and its watchers.
func TestProfile(t *testing.T) {
	permit := func(rules string, permits func(watcher string, at time.Time, payload string) error) brokertest.Policy {
		return brokertest.Policy{Document: `{"v":1,"rules":[` + rules + `]}`, Permits: permits}
	}
	nothing := func(_ string, _ time.Time, payload string) error {
		if !strings.Contains(payload, `"unknown"`) || strings.Contains(payload, "notes") {
			return errors.New("nothing is permitted")
		}
		return nil
	}
	only := func(who []string, show string) brokertest.Policy {
		var ids []string
		for _, w := range who {
			ids = append(ids, `{"one":"evt:`+w+`"}`)
		}
		return permit(`{"id":"a","if":{"identity":[`+strings.Join(ids, ",")+`]},"then":{"handling":"allow"},"show":`+show+`}`,
			func(watcher string, at time.Time, payload string) error {
				switch {
				case !slices.Contains(who, watcher):
					return nothing(watcher, at, payload)
				case strings.Contains(payload, "notes") && !strings.Contains(show, "notes"):
					return errors.New("the notes are not permitted")
				}
				return nil
			})
	}
	blind := []brokertest.Policy{
		permit(``, nothing),
		permit(`{"id":"a","then":{"handling":"polite-block"},"show":{"state":true}}`, nothing),
		permit(`{"id":"a","then":{"handling":"allow"}}`, nothing),
	}
	brokertest.TestProfile(t, brokertest.Suite{
		New:    func() broker.Profile { return state.New(example.Health{}) },
		Owners: []string{"press12@plant.example.com", "saw1@plant.example.com"}, Watchers: []string{"ann@example.net", "eve@example.net"},
		Topic: func(owner string) string { return kind.Resource{Kind: "health", Addr: kind.Of(owner)}.Topic() },
		Publish: func(owner string) *rapid.Generator[brokertest.Publication] {
			topic := kind.Resource{Kind: "health", Addr: kind.Of(owner)}.Topic()
			return rapid.Custom(func(t *rapid.T) brokertest.Publication {
				p := brokertest.Publication{Topic: topic + rapid.SampledFrom([]string{"", "/engine", "/oil"}).Draw(t, "source"), Retain: rapid.Bool().Draw(t, "retain")}
				if rapid.IntRange(0, 5).Draw(t, "remove") > 0 {
					p.Payload = drawReport(t)
				}
				if rapid.IntRange(0, 3).Draw(t, "expiry") == 0 {
					p.Properties = [][2]string{{"evt-expires", rapid.SampledFrom([]string{"10", "60", "5", "9999999"}).Draw(t, "seconds")}}
				}
				return p
			})
		},
		Policy: func(string) *rapid.Generator[brokertest.Policy] {
			return rapid.SampledFrom(append([]brokertest.Policy{
				{Permits: nothing},
				only([]string{"ann@example.net"}, `{"state":true}`),
				only([]string{"eve@example.net", "saw1@plant.example.com"}, `{"state":true,"notes":true}`),
			}, blind...))
		},
		Blind:   func(string) *rapid.Generator[brokertest.Policy] { return rapid.SampledFrom(blind) },
		Default: func(string) brokertest.Policy { return brokertest.Policy{Permits: nothing} },
	})
}
