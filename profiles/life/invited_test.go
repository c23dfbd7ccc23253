package life

import (
	"fmt"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/golden"
	"github.com/bellwire/bellwire/profiles/policy"
)

// Invitations are listed until their time is over, or they are declined, or who is invited
// subscribes by their name; that somebody has done so under another, or none, the list does
// not tell. Nothing of it is left in the end.
func TestInvitationsAreListed(t *testing.T) {
	const topic = "presence/example.com/bob"
	for what, c := range map[string]struct {
		do     func(b *Book, watcher string)
		listed bool
	}{
		"nothing":  {func(*Book, string) {}, true},
		"again":    {func(b *Book, w string) { _ = b.Invite(Offer{Topic: topic, Watcher: w, By: "adm@example.com"}) }, true},
		"declined": {func(b *Book, w string) { b.Decline(topic, w) }, false},
		"accepted": {func(b *Book, w string) { _, _, _ = b.Subscribe(Request{Topic: topic, Watcher: w, Session: 1}) }, false},
		"as somebody": {func(b *Book, w string) {
			_, _, _ = b.Subscribe(Request{Topic: topic, Watcher: w, Session: 1, As: Somebody})
		}, true},
		"as pseudonym": {func(b *Book, w string) {
			_, _, _ = b.Subscribe(Request{Topic: topic, Watcher: w, Session: 1, As: "p-x@example.net"})
		}, true},
		"provided": {func(b *Book, w string) { _, _ = b.Provide(Offer{Topic: topic, Watcher: w, By: "adm@example.com"}) }, false},
		"removed":  {func(b *Book, w string) { b.Forget("presence/example.com/"+w, w) }, false},
	} {
		l := newLedger()
		book := func() *Book {
			return l.book(func(string, string) Verdict { return Verdict{Handling: policy.Allow} }, Limits{})
		}
		list := func() (all []string) {
			EachInvitation(l.Each, "presence/example.com/", func(topic, watcher string, i *Invitation) bool {
				all = append(all, fmt.Sprint(topic, " ", watcher, " ", i.By, " ", i.Note, " ", (i.Until-l.now)/int64(time.Hour)))
				if of := InvitationTo(l.Get, topic, watcher); *of != *i {
					t.Errorf("%s: of one is found %+v, and listed %+v", what, of, i)
				}
				return true
			})
			return all
		}
		const ann = "ann@example.net"
		if err := book().Invite(Offer{Topic: topic, Watcher: ann, By: "adm@example.com", Note: "look"}); err != nil {
			t.Fatal(err)
		}
		if is := fmt.Sprint(list()); is != "[presence/example.com/bob ann@example.net adm@example.com look 168]" {
			t.Fatalf("listed are %s", is)
		}
		l.pass(time.Hour, book)
		if c.do(book(), ann); (len(list()) == 1) != c.listed {
			t.Errorf("%s: listed are %v", what, list())
		}
		l.pass(OfferedFor-time.Second, book)
		l.pass(time.Second, book)
		if is := list(); len(is) != 0 {
			t.Errorf("%s: a week later listed are %v", what, is)
		}
		for name := range l.wakes {
			if name[21:23] == wakeList {
				t.Errorf("%s: there is still a wake %q", what, name)
			}
		}
	}
	golden.Forms(t, "invited.txt", []golden.Form{
		{Name: "invited/4", Bytes: (&Invitation{By: "adm@example.com", Note: "look", Until: 14}).encode()},
	})
}
