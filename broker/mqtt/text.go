package mqtt

import (
	"bytes"
	"errors"
	"unicode/utf8"

	"github.com/bellwire/bellwire/broker/topic"
)

// validText says whether b is a string of the standard: UTF-8 without NUL.
func validText(b []byte) bool {
	return utf8.Valid(b) && bytes.IndexByte(b, 0) < 0
}

// validID says whether b can name a client, a user or a filter: a string
// without control characters and non-characters. MQTT advises against these
// and lets a receiver refuse them (5.0 1.5.4). We do where something is named,
// because names end up in logs and on terminals; values of properties are the
// clients' own affair.
func validID(b []byte) bool {
	for i, c := range b {
		if c >= utf8.RuneSelf {
			return validRunes(b[i:])
		}
		if c < 0x20 || c == 0x7f {
			return false
		}
	}
	return true
}

// validRunes is validID from the first byte on that is not ASCII.
func validRunes(b []byte) bool {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n <= 1,
			r < 0x20, r >= 0x7f && r < 0xa0,
			r >= 0xfdd0 && r <= 0xfdef, r&0xfffe == 0xfffe:
			return false
		}
		b = b[n:]
	}
	return true
}

// checkTopic holds the name of a topic that somebody wants to publish to
// against the rules. What breaks the protocol is a fault. What is well-formed
// and yet no topic of ours is refused: the publish is answered, and the
// connection goes on.
func checkTopic(name string) (refused, fatal error) {
	switch err := topic.ValidName(name); {
	case err == nil:
		return nil, nil
	case errors.Is(err, topic.ErrWildcard):
		return nil, &fault{codeBadTopic, err.Error()}
	case errors.Is(err, topic.ErrShare), errors.Is(err, topic.ErrTooDeep):
		return errBadTopic, nil
	default:
		return nil, malformed(err.Error())
	}
}
