package topic

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	// MaxBytes is the longest name or filter: MQTT counts a string's bytes in
	// 16 bits (5 [MQTT-4.7.3-3]).
	MaxBytes = 65535

	// Limit is how many levels a name or a filter may have. MQTT sets none;
	// without one, the work a filter causes would be up to its sender. The
	// levels of `$share/group/` do not count.
	Limit = 128
)

// Why a name or a filter is no good. It is always the client's doing, and the
// same string will be refused again. They are returned as they are, so that
// checking allocates nothing; the caller adds which string it was.
var (
	// ErrEmpty means a string without a character (5 [MQTT-4.7.3-1]).
	ErrEmpty = errors.New("topic is empty: it needs at least one character")

	// ErrTooLong means more than MaxBytes bytes.
	ErrTooLong = fmt.Errorf("topic is longer than %d bytes: shorten it", MaxBytes)

	// ErrTooDeep means more than Limit levels.
	ErrTooDeep = fmt.Errorf("topic has more than %d levels: use fewer '/'", Limit)

	// ErrMalformed means a NUL, or bytes that are not UTF-8 (surrogates are
	// not). MQTT forbids both to every string, so the packet is malformed and
	// the connection has to end (5 [MQTT-1.5.4-1] and [MQTT-1.5.4-2]; 3.1.1
	// [MQTT-1.5.3-1] and [MQTT-1.5.3-2]).
	ErrMalformed = errors.New("topic is not UTF-8 or contains NUL: send well-formed UTF-8 without U+0000")

	// ErrCharacter means a control character (U+0001 to U+001F, U+007F to
	// U+009F) or a code point that is never a character (U+FDD0 to U+FDEF,
	// and the last two of each plane). MQTT says that a sender should not
	// send them and a receiver may refuse them (5, 1.5.4). We refuse: they
	// forge lines in logs and on terminals, and no device needs them.
	ErrCharacter = errors.New("topic contains a control character or a Unicode non-character: leave it out")

	// ErrWildcard means '+' or '#' in a name, which only filters may have (5
	// [MQTT-3.3.2-2]; 3.1.1 [MQTT-3.3.2-2]).
	ErrWildcard = errors.New("topic name contains a wildcard: only filters may have '+' or '#'")

	// ErrPosition means a wildcard that is not a level by itself, or a '#'
	// that is not the last level (5 [MQTT-4.7.1-1] and [MQTT-4.7.1-2]).
	ErrPosition = errors.New("wildcard out of place: '+' and '#' stand alone between '/', and '#' comes last")

	// ErrShare means a filter that begins like a shared subscription and is
	// none (5 [MQTT-4.8.2-1] and [MQTT-4.8.2-2]), one inside another, or a
	// name where only shared subscriptions live.
	ErrShare = errors.New("not a shared subscription: it is $share/group/filter, the group without '+', '#' or '/', and no name begins with $share")
)

// share is the first level of a shared subscription's filter.
const share = "$share"

// ValidName says whether s may be published to: nil, or one of the errors
// above. It says nothing about permission. It is safe for any input and
// allocates nothing.
func ValidName(s string) error {
	c, err := scan(s)
	switch {
	case err != nil:
		return err
	case c.wild:
		return ErrWildcard
	case isShare(s):
		return ErrShare
	case c.levels > Limit:
		return ErrTooDeep
	}
	return nil
}

// ValidFilter says whether s may be subscribed to: nil, or one of the errors
// above. A shared subscription's filter is checked as a whole, with the rules
// of SplitShare. It is safe for any input and allocates nothing.
func ValidFilter(s string) error {
	c, err := scan(s)
	if err != nil {
		return err
	}
	_, rest, shared, err := SplitShare(s)
	if err != nil {
		return err
	}
	if shared {
		c.levels -= 2
	}
	switch {
	case shared && isShare(rest):
		return ErrShare
	case c.levels > Limit:
		return ErrTooDeep
	case c.wild && !wildcardsInPlace(rest):
		return ErrPosition
	}
	return nil
}

// SplitShare takes the filter of a shared subscription, `$share/group/rest`,
// apart. Any other filter is returned as rest, and shared is false. The error
// is ErrShare: `$share` alone, no group, a wildcard in the group, no rest.
// Whether rest is a valid filter is not asked here, but by ValidFilter.
func SplitShare(filter string) (group, rest string, shared bool, err error) {
	if !isShare(filter) {
		return "", filter, false, nil
	}
	if len(filter) == len(share) {
		return "", "", false, ErrShare
	}
	group, rest, _ = strings.Cut(filter[len(share)+1:], "/")
	if group == "" || rest == "" || strings.ContainsAny(group, "+#") {
		return "", "", false, ErrShare
	}
	return group, rest, true, nil
}

func isShare(s string) bool {
	return strings.HasPrefix(s, share) && (len(s) == len(share) || s[len(share)] == '/')
}

// What one pass over the bytes tells of a string.
type content struct {
	levels int
	wild   bool // a '+' or '#' somewhere
}

// What a byte can be to scan. Nearly all bytes are none of it.
const (
	wildcard = 1 << iota
	control
	nul
	high // part of a character beyond ASCII
)

// kinds is indexed by byte. It is made before main and never changes.
var kinds = func() (k [256]uint8) {
	for c := range k {
		switch {
		case c == 0:
			k[c] = nul
		case c < 0x20 || c == 0x7f:
			k[c] = control
		case c >= utf8.RuneSelf:
			k[c] = high
		}
	}
	k['+'], k['#'] = wildcard, wildcard
	return k
}()

// scan checks what names and filters have in common: length and characters.
// What MQTT forbids wins over what we refuse: ErrMalformed over ErrCharacter.
func scan(s string) (content, error) {
	switch {
	case s == "":
		return content{}, ErrEmpty
	case len(s) > MaxBytes:
		return content{}, ErrTooLong
	}
	var found uint8
	for i := 0; i < len(s); i++ {
		found |= kinds[s[i]]
	}
	switch {
	case found&nul != 0, found&high != 0 && !utf8.ValidString(s):
		return content{}, ErrMalformed
	case found&control != 0, found&high != 0 && strings.ContainsFunc(s, refused):
		return content{}, ErrCharacter
	}
	return content{levels: strings.Count(s, "/") + 1, wild: found&wildcard != 0}, nil
}

// refused tells the code points beyond ASCII of ErrCharacter.
func refused(r rune) bool {
	return r >= 0x80 && r <= 0x9f || r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe
}

func wildcardsInPlace(filter string) bool {
	for at := 0; at <= len(filter); {
		level, next := levelAt(filter, at)
		last := next > len(filter)
		switch {
		case level == "+", level == "#" && last:
		case strings.ContainsAny(level, "+#"):
			return false
		}
		at = next
	}
	return true
}

// levelAt returns the level of s that starts at byte at, and where the next
// one starts: beyond len(s) if there is none. A string that ends in '/' has an
// empty last level, which starts at len(s).
func levelAt(s string, at int) (level string, next int) {
	if i := strings.IndexByte(s[at:], '/'); i >= 0 {
		return s[at : at+i], at + i + 1
	}
	return s[at:], len(s) + 1
}

// Levels returns how many levels a name or a filter has; those of `$share/group/` do not
// count. s is valid.
func Levels(s string) int {
	n := strings.Count(s, "/") + 1
	if strings.HasPrefix(s, "$share/") {
		n -= 2
	}
	return n
}
