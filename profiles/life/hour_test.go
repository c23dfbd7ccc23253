package life

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/golden"
	"github.com/bellwire/bellwire/profiles/policy"
)

// People of one domain ask those of others so often in an hour, whoever of them asks and
// whatever becomes of it: what is granted or refused at once, and what they ask each other, is
// not among it, nor is to ask again for what waits. Who has no domain is of one with all such.
// Of a domain that asks no more nothing is kept.
func TestDomainsAsk(t *testing.T) {
	verdict := Verdict{Handling: policy.Confirm}
	l, session := newLedger(), uint64(0)
	book := func() *Book {
		return l.book(func(string, string) Verdict { return verdict }, Limits{ByDomain: 4})
	}
	ask := func(watcher, topic string) bool {
		t.Helper()
		session++
		_, _, err := book().Subscribe(Request{Topic: topic, Watcher: watcher, Session: session})
		if err != nil && (!errors.Is(err, ErrQuota) || !strings.Contains(err.Error(), "rate: your domain has asked for as much of others as it may in an hour, 4: the next in ")) {
			t.Errorf("%s, %s: %v", watcher, topic, err)
		}
		if err := l.check(nil, Limits{}.WithDefaults()); err != nil {
			t.Fatal(err)
		}
		return err == nil
	}
	const bobs = "presence/x.org/bob"
	for i := range 20 {
		if !ask(fmt.Sprint(i, "@x.org"), bobs) {
			t.Fatal("who is of the domain is refused")
		}
	}
	for i, v := range []Verdict{{Handling: policy.Confirm}, {Handling: policy.Confirm, Ignored: true}, {Handling: policy.Allow}, {Handling: policy.PoliteBlock}, {Handling: policy.Confirm}, {Handling: policy.Confirm}} {
		if verdict = v; !ask(fmt.Sprint(i, "@y.org"), fmt.Sprint("presence/x", i, ".org/bob")) {
			t.Errorf("request %d", i)
		}
	}
	if ask("6@y.org", bobs) || ask("7@y.org", "presence/x.org/nobody") || ask("7@y.org", "presence/z.org/nobody") {
		t.Error("one more is let in")
	}
	if !ask("0@y.org", "presence/x0.org/bob") || !ask("8@y.org", "presence/y.org/ann") || !ask("0@z.org", bobs) {
		t.Error("what waits, what is theirs, and what others ask for is refused")
	}
	if verdict = (Verdict{Handling: policy.Allow}); !ask("9@y.org", bobs) {
		t.Error("what is granted at once is refused")
	}
	verdict = Verdict{Handling: policy.Confirm}
	for i := range 5 {
		if ask(WatcherOf("", uint64(100+i)), bobs) != (i < 4) {
			t.Errorf("request %d of who has no name", i)
		}
	}
	l.pass(14*time.Minute, book)
	if ask("6@y.org", bobs) {
		t.Error("there is one more each 15 minutes, and they are not over")
	}
	l.pass(time.Minute, book)
	if !ask("6@y.org", bobs) || ask("7@y.org", bobs) {
		t.Error("want one more after 15 minutes")
	}
	l.pass(time.Hour, book)
	for key := range l.keys {
		if strings.HasPrefix(key, hourPrefix) {
			t.Errorf("%q is kept", key)
		}
	}
	if err := l.check(nil, Limits{}.WithDefaults()); err != nil {
		t.Error(err)
	}
}

// What is stored of a domain's requests is read as it was written.
func TestHourForm(t *testing.T) {
	golden.Forms(t, "hour.txt", []golden.Form{{Name: "hour/4", Bytes: appendHour(nil, 1<<60+1)}})
	if got := readHour(appendHour(nil, 1<<60+1)); got != 1<<60+1 {
		t.Errorf("read as %d", got)
	}
}
