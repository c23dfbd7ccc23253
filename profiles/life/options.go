package life

import (
	"fmt"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/watchers"
)

// MinExpires is the shortest time that can be asked for.
const MinExpires = 30 * time.Second

// MaxNote is how many characters a note may have.
const MaxNote = 256

// Options are what a SUBSCRIBE says of how, by its User Properties.
type Options struct {
	// Expires is for how long, if Bounded; 0 is to be shown the state once.
	Expires time.Duration
	Bounded bool

	Note  string         // evt-note
	Offer watchers.Offer // evt-visibility; empty: it says nothing
}

// ReadOptions reads User Properties in wire form. The error wraps kind.ErrInvalid, or
// kind.ErrTooBrief.
func ReadOptions(props []byte) (o Options, err error) {
	for name, value := range event.UserProperties(props) {
		switch name {
		case "evt-expires":
			seconds, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return o, fmt.Errorf("%w: evt-expires is %.20q: write a number of seconds", kind.ErrInvalid, value)
			}
			o.Expires, o.Bounded = time.Duration(seconds)*time.Second, true
			if o.Expires > 0 && o.Expires < MinExpires {
				return o, fmt.Errorf("%w: min-expires=%d: %d seconds are asked for", kind.ErrTooBrief, int(MinExpires/time.Second), seconds)
			}
		case "evt-note":
			if o.Note, err = CheckNote(value); err != nil {
				return o, err
			}
		case "evt-visibility":
			if o.Offer, err = watchers.ParseOffer(value); err != nil {
				return o, fmt.Errorf("%w: %w", kind.ErrInvalid, err)
			}
		}
	}
	return o, nil
}

// CheckNote returns a note. The error wraps kind.ErrInvalid.
func CheckNote(note string) (string, error) {
	if n := utf8.RuneCountInString(note); n > MaxNote {
		return "", fmt.Errorf("%w: evt-note has %d characters: at most %d are possible", kind.ErrInvalid, n, MaxNote)
	}
	for _, c := range note {
		if unicode.IsControl(c) {
			return "", fmt.Errorf("%w: evt-note has the control character %U", kind.ErrInvalid, c)
		}
	}
	return note, nil
}
