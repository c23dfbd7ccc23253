package mqtt

import (
	"strings"
	"testing"

	"github.com/bellwire/bellwire/bw"
)

// Whatever refuses says a number that `bellwire explain` knows, and why; what
// does not refuse says neither.
func TestReasonsAreNumbered(t *testing.T) {
	for _, c := range []struct {
		code      byte
		why, want string
	}{
		{codeSuccess, "", ""},
		{codeNoSubscribers, "", ""},
		{codeNotAuthorized, "no rule allows it", "BW-4001 no rule allows it"},
		{codeNotAuthorized, "rejected: its owner shows it to others", "BW-4003 rejected: its owner shows it to others"},
		{codeNotAuthorized, "identity-required: nobody knows who is meant by me", "BW-4001 identity-required: nobody knows who is meant by me"},
		{codeBadCredentials, "", "BW-4002 bad user name or password"},
		{codeQuota, "", "BW-8001 quota exceeded"},
		{codeQuota, whyDiskFull, "BW-5005 disk-full"},
		{codeImplementation, whyNoQuorum, "BW-7001 no-quorum"},
		{codeImplementation, whyBadEvent, "BW-6003 bad-event"},
		{codeImplementation, whyBadEvent + ": presence is not enabled", "BW-6003 bad-event: presence is not enabled"},
		{codeImplementation, "stale-etag", "BW-3002 stale-etag"},
		{codeBadPayload, "", "BW-6004 payload format invalid"},
		{codeUnspecified, "internal error", "BW-9001 internal error"},
	} {
		if got := reasonText(c.code, c.why); got != c.want {
			t.Errorf("0x%02X %q: got %q, want %q", c.code, c.why, got, c.want)
		}
	}
	for code := range codeRules {
		text := reasonText(code, "")
		number, why, _ := strings.Cut(text, " ")
		if _, known := bw.Find(number); code >= codeUnspecified && (!known || why == "") {
			t.Errorf("0x%02X: %q", code, text)
		}
	}
}
