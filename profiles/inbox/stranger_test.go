package inbox

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/profiles/im"
)

const letsAnybody = `{"v":1,"rules":[{"id":"all","then":{"handling":"allow"},"show":{"send":true}}]}`

// strange sends a message to an address and says whether it was refused as one too many to
// strangers.
func strange(t *testing.T, c client, to string) bool {
	t.Helper()
	err := c.Publish(inboxOf(to), "hello", 1)
	if err == nil {
		return false
	}
	if !errors.Is(err, broker.ErrQuota) || !strings.Contains(err.Error(), "to people who have not written to you and name you in no rule of theirs") {
		t.Errorf("to %s: %v", to, err)
	}
	return true
}

// So many messages an hour go to whom their sender is a stranger, whether these are there or
// not, let in everybody or nobody; one more is refused for all of them alike, and changes
// nothing. Whom the sender is known to they can always write to. It is the same after a
// restart, by the log's time, and nobody else's is used up.
func TestStrangersHaveARate(t *testing.T) {
	n := newNode(t, Limits{Strangers: 6})
	connect := func(who string) client { return n.Connect(who, who, time.Hour) }
	ann, mallory := connect(alice), connect("mallory@example.com")
	for who, policy := range map[string]string{
		"open@example.com":    letsAnybody,
		"named@example.com":   rules(lets("alice", alice, "")),
		"ours@example.com":    `{"v":1,"rules":[{"id":"net","if":{"identity":[{"many":{"domain":"example.net"}}]},"then":{"handling":"allow"},"show":{"send":true}}]}`,
		"but@example.com":     `{"v":1,"rules":[{"id":"any","if":{"identity":[{"many":{"except":[{"id":"im:mallory@example.com"}]}}]},"then":{"handling":"allow"},"show":{"send":true}}]}`,
		"later@example.com":   `{"v":1,"rules":[{"id":"alice","if":{"identity":[{"one":"im:alice@example.net"}],"validity":[{"from":"2027-01-01T00:00:00Z","until":"2028-01-01T00:00:00Z"}]},"then":{"handling":"allow"},"show":{"send":true}}]}`,
		"blocked@example.com": `{"v":1,"rules":[{"id":"alice","if":{"identity":[{"one":"im:alice@example.net"}]},"then":{"handling":"block","style":"refuse"}}]}`,
	} {
		n.Must(connect(who).Publish("$me/policy/im", policy, 1))
	}
	n.Must(connect("wrote@example.com").Publish(inboxOfAlice, "hello", 1)) // and has alice's answers by default
	n.Must(connect("open@example.com").Publish(inboxOf("nobody@example.com"), "hello", 1))

	strangers := []string{"open@example.com", "but@example.com", "later@example.com", "blocked@example.com", "nobody@example.com", "default@example.com"}
	friends := []string{"named@example.com", "ours@example.com", "wrote@example.com", alice}
	for range 2 * len(strangers) {
		for _, who := range friends {
			if strange(t, ann, who) {
				t.Errorf("alice is a stranger to %s", who)
			}
		}
	}
	if connect("default@example.com"); n.Over("im.strangersPerHour") != 0 {
		t.Errorf("%d are counted before there is one too many", n.Over("im.strangersPerHour"))
	}
	for _, who := range strangers {
		if strange(t, ann, who) {
			t.Errorf("the first message to %s is one too many", who)
		}
	}
	for _, life := range []string{"first", "second"} {
		for _, who := range strangers {
			if !strange(t, ann, who) {
				t.Errorf("%s life: one more goes to %s", life, who)
			}
		}
		for _, who := range friends {
			if strange(t, ann, who) {
				t.Errorf("%s life: alice is a stranger to %s, now", life, who)
			}
		}
		if life == "first" {
			if got := n.Over("im.strangersPerHour"); got != uint64(len(strangers)) {
				t.Errorf("counted %d, want %d", got, len(strangers))
			}
			n.Restart()
			ann, mallory = connect(alice), connect("mallory@example.com")
		}
	}
	if strange(t, mallory, "open@example.com") {
		t.Error("mallory has used up nothing")
	}
	n.Pass(9 * time.Minute)
	if !strange(t, ann, "open@example.com") {
		t.Error("in 9 minutes there is room for one that comes each 10")
	}
	n.Pass(2 * time.Minute)
	if strange(t, ann, "nobody@example.com") || !strange(t, ann, "open@example.com") {
		t.Error("one more each 10 minutes")
	}
	n.Must(connect("open@example.com").Publish(inboxOfAlice, "who are you?", 1))
	if strange(t, ann, "open@example.com") {
		t.Error("whom one has written to may answer")
	}
	n.Pass(2 * time.Hour)
	for i := range 7 {
		if strange(t, ann, fmt.Sprint("nobody", i, "@example.com")) != (i == 6) {
			t.Errorf("after two hours: message %d", i)
		}
	}
}

// Who writes under a pseudonym writes to strangers as themselves; and to a pseudonym that
// they know somebody by they are none.
func TestPseudonymsAreNoWayAround(t *testing.T) {
	n, phone, ann, name := pseudonymous(t, "")
	limits := Limits{Strangers: 2}
	n.Must(n.SetProfileSettings(t.Context(), "im", limits.Settings(n.Level())))
	n.Must(phone.Publish("$me/policy/im", letsAnybody, 1))
	for i := range 3 {
		err := ann.Publish(inboxOfBob, "hello", 1, from(name))
		if (err == nil) != (i < 2) {
			t.Errorf("message %d: %v", i, err)
		}
	}
	if !strange(t, ann, "nobody@example.com") {
		t.Error("under her own name alice has as much again")
	}
	for range 4 {
		if strange(t, phone, name) {
			t.Error("bob is a stranger to the pseudonym he knows alice by")
		}
	}
	if n.Must(ann.Publish(inboxOfBob, "hello", 1, from(name))); n.Over("im.strangersPerHour") != 2 {
		t.Errorf("counted %d", n.Over("im.strangersPerHour"))
	}
}

// Until all nodes know the bound there is none, and neither is anything stored that the
// others could not read.
func TestStrangersOnceAllNodesKnow(t *testing.T) {
	n := &node{brokertest.NewAt(t, broker.LevelHours-1, func() []broker.Profile { return []broker.Profile{New(im.New(), Limits{Strangers: 1})} }), t}
	ann := n.Connect("laptop", alice, time.Hour)
	limits := Limits{Strangers: 2}
	n.Must(n.SetProfileSettings(t.Context(), "im", limits.Settings(n.Level())))
	if got := n.ProfileSettings("im"); got[0] != settingsFirst {
		t.Errorf("settings are written as %x", got)
	}
	if l, err := ReadSettings(n.ProfileSettings("im")); err != nil || l.Strangers != 20 {
		t.Errorf("in force are %+v, %v", l, err)
	}
	for range 30 {
		if strange(t, ann, bob) {
			t.Fatal("there is a bound")
		}
	}
	n.Must(n.Raise(t.Context(), broker.NewestLevel))
	middle := n.Copy()
	n.Must(n.SetProfileSettings(t.Context(), "im", limits.Settings(n.Level())))
	for i := range 3 {
		if strange(t, ann, bob) != (i == 2) {
			t.Errorf("message %d once all nodes know", i)
		}
	}
	n.CheckReplay(middle)
}

// What is known of a sender reads as it was written, also by a version that knew of no
// strangers, and is written so as long as there is nothing else to say.
func TestSenderOnDisk(t *testing.T) {
	const first, second = "01" + "1000000000000000" + "ac02", "02" + "1000000000000000" + "ac02" + "1000000000000001"
	for text, want := range map[string]sender{
		first:  {busy: 1 << 60, contacts: 300},
		second: {busy: 1 << 60, contacts: 300, strange: 1<<60 + 1},
	} {
		data, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := readSender(data); *got != want {
			t.Errorf("%s reads as %+v, want %+v", text, *got, want)
		}
		if got := hex.EncodeToString(want.encode()); got != text {
			t.Errorf("written as %s, want %s", got, text)
		}
	}
}
