package state

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/profiles/fields"
	"github.com/bellwire/bellwire/profiles/life"
	"github.com/bellwire/bellwire/profiles/policy"
)

var _ broker.Adjustable = (*Profile)(nil)

// Limits bound what a profile takes; zero of any field means its default. They decide
// what Apply does, so they are in force as the log has them (Settings); what a Profile is made
// with holds while the log has none.
type Limits struct {
	Life life.Limits

	// SourceRate is how many publications of one source are taken in a second, on average,
	// and SourceBurst how many at once: 0 means 1 and 20. See sources.
	SourceRate, SourceBurst int

	// Default is what becomes of subscriptions about which the owner has said nothing,
	// be it that there is no owner: PoliteBlock, which 0 means, or Confirm.
	Default policy.Handling
}

// WithDefaults returns l with its zero fields replaced.
func (l Limits) WithDefaults() Limits {
	l.Life = l.Life.WithDefaults()
	l.SourceRate, l.SourceBurst = cmp.Or(l.SourceRate, 1), cmp.Or(l.SourceBurst, 20)
	if l.Default == 0 {
		l.Default = policy.PoliteBlock
	}
	return l
}

// fields are the limits that are numbers, in the order of the settings' binary form.
func (l *Limits) fields() []fields.Bounded {
	return []fields.Bounded{
		{Name: "requests of one watcher", Value: &l.Life.PendingByWatcher, Most: 1 << 20},
		{Name: "requests to one address", Value: &l.Life.PendingOf, Most: 1 << 20},
		{Name: "watchers of one address", Value: &l.Life.Watchers, Most: 1 << 24},
		{Name: "subscriptions kept that are over", Value: &l.Life.KeptOf, Most: 1 << 20},
		{Name: "subscriptions a minute", Value: &l.Life.PerMinute, Most: 1 << 20},
		{Name: "sessions of one watcher", Value: &l.Life.SessionsSharing, Most: 10_000},
		{Name: "addresses that one watcher watches", Value: &l.Life.ByWatcher, Most: 1 << 20},
		{Name: "watchers by wildcards", Value: &l.Life.Wides, Most: 1 << 20},
		{Name: "filters with wildcards of one watcher", Value: &l.Life.WidesBy, Most: 1000},
		{Name: "publications of one source a second", Value: &l.SourceRate, Most: 1 << 20},
		{Name: "publications of one source at once", Value: &l.SourceBurst, Most: 1 << 20},
		{Name: "requests of one domain an hour", Value: &l.Life.ByDomain, Most: 1 << 20},
	}
}

// The binary form of settings: a version has the numbers of the one before, and more.
const (
	settingsFirst   = 1
	settingsVersion = 4
)

// settingsNumbers are how many numbers each version has.
var settingsNumbers = [settingsVersion + 1]int{1: 7, 2: 9, 3: 11, 4: 12}

// Settings returns what the log is to be told of l, its zero fields replaced.
//
//	version u8 = 4, default handling u8, most expires uvarint (seconds), then uvarints:
//	pending by watcher, pending, watchers, kept, per minute, sessions sharing, by watcher,
//	from version 2 on: watchers by wildcards, and how many of those one watcher may be;
//	from version 3 on: publications of one source a second, and at once;
//	from version 4 on: requests of one domain an hour
func (l Limits) Settings() []byte {
	l = l.WithDefaults()
	b := []byte{settingsVersion, byte(l.Default)}
	b = binary.AppendUvarint(b, uint64(l.Life.MostExpires/time.Second))
	return fields.AppendBounded(b, l.fields())
}

// ReadSettings reads what Settings returned; of anything else it says what is wrong.
func ReadSettings(data []byte) (l Limits, err error) {
	if len(data) < 2 || data[0] < settingsFirst || data[0] > settingsVersion {
		return l, errors.New("of another version, or none")
	}
	numbers := l.fields()[:settingsNumbers[data[0]]]
	l.Default, data = policy.Handling(data[1]), data[2:]
	if l.Default != policy.PoliteBlock && l.Default != policy.Confirm {
		return l, fmt.Errorf("default handling: %d, want polite-block or confirm", l.Default)
	}
	seconds, n := binary.Uvarint(data)
	if n <= 0 || seconds < uint64(life.MinExpires/time.Second) || seconds > 1<<32 {
		return l, fmt.Errorf("longest time: %d seconds", seconds)
	}
	l.Life.MostExpires, data = time.Duration(seconds)*time.Second, data[n:]
	err = fields.ReadBounded(data, numbers)
	return l.WithDefaults(), err
}

// CheckSettings says what is wrong with settings.
func (p *Profile) CheckSettings(data []byte) error {
	return fields.CheckSettings(p.kind.Name(), data, ReadSettings)
}

// Adjust takes note of the settings that are in force on this node, by which it shows
// resources.
func (p *Profile) Adjust(settings []byte) {
	l := p.limitsOf(settings)
	p.shownBy.Store(&l)
}

// limitsIn returns the limits in force for a command.
func (p *Profile) limitsIn(tx *broker.ProfileTx) Limits { return p.limitsOf(tx.Settings()) }

func (p *Profile) limitsOf(settings []byte) Limits {
	return fields.InForce(settings, p.limits, ReadSettings)
}
