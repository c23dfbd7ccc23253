package blackbox

import (
	"fmt"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// mostAttempts is how often something is tried that a machine with other work may spoil.
const mostAttempts = 3

// An attempt is one at something that is to be done in some time, or under one leader. A
// machine that has other work delays it now and then, and not each time; a fault of ours does.
type attempt struct {
	since  time.Time // when what is to arrive was begun
	spoilt []string
}

// begin is called before what causes the packets that arrive then: a server that is slow may
// be so in answering it.
func (a *attempt) begin() { a.since = time.Now() }

// spoil notes what a machine with other work may be to blame for.
func (a *attempt) spoil(format string, args ...any) {
	a.spoilt = append(a.spoilt, fmt.Sprintf(format, args...))
}

// within notes how long something took, and spoils the attempt if that is more than most.
func (a *attempt) within(most, took time.Duration, what string) {
	if took > most {
		a.spoil("%s after %v, want %v at most", what, took, most)
	}
}

// arrives returns the next packet, which is to come within a second of what was begun.
func (a *attempt) arrives(c *mq.Client) *mq.Packet {
	p := c.Arrives(patience)
	a.within(time.Second, time.Since(a.since), fmt.Sprintf("%v came", p))
	return p
}

// bestOrMedian returns what of times in ascending order a bound is for: the median where the
// machine is ours, and elsewhere the best, for other work delays some of them and not all.
func bestOrMedian(took []time.Duration) time.Duration {
	if machineIsOurs() {
		return took[len(took)/2]
	}
	return took[0]
}

// attempts does something until it is not spoilt: the first time where the machine is ours, and
// elsewhere one of a few times, in every run. What else goes wrong fails the test at once.
func attempts(t testing.TB, do func(a *attempt)) {
	t.Helper()
	for n := 1; ; n++ {
		var a attempt
		do(&a)
		switch spoilt := strings.Join(a.spoilt, "; "); {
		case spoilt == "":
			return
		case n == mostAttempts || machineIsOurs():
			t.Errorf("attempt %d: %s", n, spoilt)
			return
		default:
			t.Logf("attempt %d: %s", n, spoilt)
		}
	}
}
