package refuse

import (
	"errors"
	"testing"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
)

// Every entity tag that a publication has must be the present one, and finding that out
// costs no more the more properties there are.
func TestStale(t *testing.T) {
	const present = "3k"
	for _, c := range []struct {
		name  string
		props []string // names and values
		times int
		stale bool
		asked int
	}{
		{"without properties", nil, 1, false, 0},
		{"others, many of them", []string{"", "", "etag", "9"}, 1000, false, 0},
		{"the present one", []string{"evt-etag", present}, 1, false, 1},
		{"the present one, many times", []string{"evt-etag", present, "x", "y"}, 1000, false, 1},
		{"another", []string{"evt-etag", "9"}, 1000, true, 1},
		{"none", []string{"evt-etag", ""}, 1, true, 1},
		{"both", []string{"evt-etag", present, "evt-etag", "9"}, 1, true, 1},
	} {
		e := &event.Event{}
		for range c.times {
			for i := 0; i < len(c.props); i += 2 {
				e.Props = event.AppendUserProperty(e.Props, c.props[i], c.props[i+1])
			}
		}
		asked := 0
		err := Stale(&broker.Publication{Event: e}, "the list", func() string { asked++; return present })
		if errors.Is(err, broker.ErrCondition) != c.stale || (err != nil) != c.stale || asked != c.asked {
			t.Errorf("%s: %v, stale %v wanted; the tag was made %d times, want %d", c.name, err, c.stale, asked, c.asked)
		}
	}
}
