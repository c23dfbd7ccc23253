package mqtt

import (
	"strings"

	"github.com/bellwire/bellwire/bw"
)

// Words that a program may look for in a Reason String, where the reason codes
// of MQTT do not tell causes apart.
const (
	whyBadEvent = "bad-event"
	whyDiskFull = "disk-full"
	whyNoQuorum = "no-quorum"
)

// reasonText is the Reason String for a code that refuses: the number of the
// kind of error, which `bellwire explain` knows more about, and why, which is
// the standard's name of the code where nobody has said more.
//
//	BW-4001 no rule allows publishing to it
func reasonText(code byte, why string) string {
	if code < codeUnspecified {
		return why
	}
	if why == "" {
		why = codeName(code)
	}
	return numberOf(code, why).String() + " " + why
}

func numberOf(code byte, why string) bw.Code {
	word, _, _ := strings.Cut(why, ":")
	switch {
	case word == whyBadEvent:
		return bw.NoSuchKind
	case word == whyDiskFull:
		return bw.DiskFull
	case word == whyNoQuorum:
		return bw.NoQuorum
	case code == codeNotAuthorized && strings.Contains(why, "; "+bw.ExplainHint):
		return bw.ByPolicy
	case code == codeNotAuthorized && bw.OfOwner(why):
		return bw.ByOwner
	case code == codeUnspecified:
		return bw.Unclassified
	}
	return bw.OfReason(code)
}

// reasonString is the Reason String for code, if the client wants one and takes
// a packet that has it beside n other bytes; else it is empty.
func (c *conn) reasonString(code byte, why string, n int) string {
	if c.version < 5 || !c.problemInfo {
		return ""
	}
	text := reasonText(code, why)
	if c.maxPacket < n+maxVarint+3+len(text) {
		return ""
	}
	return text
}
