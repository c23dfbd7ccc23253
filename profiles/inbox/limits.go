package inbox

import (
	"cmp"
	"errors"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/profiles/fields"
)

// Limits bound what a profile keeps and takes. Zero of any field means its
// default. They decide what Apply does, so they are in force as the log has them
// (Settings); what a Profile is made with holds while the log has none.
type Limits struct {
	// Kept and KeptBytes bound what one inbox keeps for devices: 0 means 1,000
	// messages and 10 MiB; at most MostKept, and 1 GiB. Past either the sender is
	// refused (quota).
	Kept, KeptBytes int

	// IDs is how many ids of messages one inbox remembers: 0 means 65,536. The
	// oldest is forgotten first: if that message comes again it is another.
	IDs int

	// Rate is how many messages one sender may send a second, on average, and
	// Burst how many at once: 0 means 20 and 200. Beyond they are refused
	// (rate).
	Rate, Burst int

	// Contacts is how many people one sender is known to have written to: 0
	// means 5,000. Those they write to beyond stay strangers.
	Contacts int

	// Strangers is how many messages one sender may send in an hour, on average, to whom
	// they are a stranger (stranger.go), and how many of them at once: 0 means 20. Beyond
	// they are refused (rate). It is in force from broker.LevelHours on.
	Strangers int
}

// MostKept is the most that Kept may be: what is written for each message is as
// long as the list of those that are kept.
const MostKept = 10_000

// WithDefaults returns l with its zero fields replaced.
func (l Limits) WithDefaults() Limits {
	l.Kept, l.KeptBytes, l.IDs = cmp.Or(l.Kept, 1000), cmp.Or(l.KeptBytes, 10<<20), cmp.Or(l.IDs, 1<<16)
	l.Rate, l.Burst, l.Contacts = cmp.Or(l.Rate, 20), cmp.Or(l.Burst, 200), cmp.Or(l.Contacts, 5000)
	l.Strangers = cmp.Or(l.Strangers, 20)
	return l
}

// fields are the limits in the order of the settings' binary form.
func (l *Limits) fields() []fields.Bounded {
	return []fields.Bounded{
		{Name: "messages kept", Value: &l.Kept, Most: MostKept},
		{Name: "bytes kept", Value: &l.KeptBytes, Most: 1 << 30},
		{Name: "ids", Value: &l.IDs, Most: 1 << 20},
		{Name: "messages a second", Value: &l.Rate, Most: 1 << 20},
		{Name: "messages at once", Value: &l.Burst, Most: 1 << 20},
		{Name: "contacts", Value: &l.Contacts, Most: 1 << 20},
		{Name: "messages to strangers an hour", Value: &l.Strangers, Most: 1 << 20},
	}
}

// The binary form of settings: a version has the numbers of the one before, and more.
const (
	settingsFirst   = 1
	settingsVersion = 2
)

// settingsNumbers are how many numbers each version has.
var settingsNumbers = [settingsVersion + 1]int{1: 6, 2: 7}

// Settings returns what the log is to be told of l at a level, its zero fields replaced.
//
//	version u8, then uvarints: kept, bytes kept, ids, rate, burst, contacts;
//	in version 2, from broker.LevelHours on: messages to strangers an hour
func (l Limits) Settings(at broker.Level) []byte {
	version := byte(settingsFirst)
	if at >= broker.LevelHours {
		version = settingsVersion
	}
	l = l.WithDefaults()
	return fields.AppendBounded([]byte{version}, l.fields()[:settingsNumbers[version]])
}

// ReadSettings reads what Settings returned; of anything else it says what is
// wrong.
func ReadSettings(data []byte) (l Limits, err error) {
	if len(data) == 0 || data[0] < settingsFirst || data[0] > settingsVersion {
		return l, errors.New("of another version, or none")
	}
	err = fields.ReadBounded(data[1:], l.fields()[:settingsNumbers[data[0]]])
	return l.WithDefaults(), err
}

// CheckSettings says what is wrong with settings.
func (p *Profile) CheckSettings(data []byte) error {
	return fields.CheckSettings(p.kind.Name(), data, ReadSettings)
}

// limitsIn returns the limits in force.
func (p *Profile) limitsIn(tx *broker.ProfileTx) Limits {
	return fields.InForce(tx.Settings(), p.limits, ReadSettings)
}
