package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/bellwire/bellwire/bw"
)

// What the server tells a watcher of its subscription people are told as it changes, once
// each; and a watch of which nothing more can come is over, with the code of its end.
func TestStanding(t *testing.T) {
	now := time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	const who = "presence of ana@example.com: "
	for name, x := range map[string]struct {
		told  []string // on the state of the subscription to ana
		notes []string
		over  bool
		code  bw.Code // 0: none
		todo  string
	}{
		"undecided, then granted": {
			told:  []string{`{"sid":"s-1","state":"pending"}`, `{"sid":"s-1","state":"pending"}`, `{"sid":"s-1","state":"active"}`},
			notes: []string{"asked for; it is not decided yet, and nothing is shown until it is", "active"},
		},
		"until when, and asked for again": {
			told:  []string{`{"sid":"s-1","state":"active","rem":600}`, `{"sid":"s-1","state":"active","rem":601}`, `{"sid":"s-1","state":"active","rem":86400}`},
			notes: []string{"active, until 12:10:00", "active, until 2026-03-10 12:00:00"},
		},
		"undecided until": {
			told:  []string{`{"sid":"s-1","state":"pending","rem":60}`},
			notes: []string{"asked for, until 12:01:00; it is not decided yet, and nothing is shown until it is"},
		},
		"a window": {
			told: []string{
				`{"sid":"s-1","state":"active","window":"closed","next":"2026-03-09T13:00:00Z"}`, `{"sid":"s-1","state":"active","window":"open"}`, `{"sid":"s-1","state":"active","window":"closed"}`,
			},
			notes: []string{"waiting: its window is closed until 13:00:00", "active", "waiting: its window is closed"},
		},
		"ended before it was heard that it was granted": {
			told: []string{`{"sid":"s-1","state":"terminated","reason":"rejected"}`}, over: true, code: bw.ByOwner,
		},
		"refused afterwards": {
			told:  []string{`{"sid":"s-1","state":"pending"}`, `{"sid":"s-1","state":"terminated","reason":"rejected"}`},
			notes: []string{"asked for; it is not decided yet, and nothing is shown until it is"}, over: true, code: bw.ByOwner,
		},
		"ended": {
			told:  []string{`{"sid":"s-1","state":"active"}`, `{"sid":"s-1","state":"terminated","reason":"deactivated"}`},
			notes: []string{"active"}, over: true, code: bw.ByOwner, todo: "run this once more",
		},
		"ended for some time": {
			told:  []string{`{"sid":"s-1","state":"active"}`, `{"sid":"s-1","state":"terminated","reason":"probation","retry-after":90}`},
			notes: []string{"active"}, over: true, code: bw.ByOwner, todo: "again at 12:01:30",
		},
		"given up": {
			told:  []string{`{"sid":"s-1","state":"pending"}`, `{"sid":"s-1","state":"terminated","reason":"giveup"}`},
			notes: []string{"asked for; it is not decided yet, and nothing is shown until it is"}, over: true, code: bw.TimedOut,
		},
		"by an administrator": {
			told:  []string{`{"sid":"s-1","state":"active"}`, `{"sid":"s-1","state":"terminated","reason":"admin"}`},
			notes: []string{"active"}, over: true, code: bw.Denied,
		},
		"its time": {
			told:  []string{`{"sid":"s-1","state":"active","rem":30}`, `{"sid":"s-1","state":"terminated","reason":"timeout"}`},
			notes: []string{"active, until 12:00:30", "its time is over"}, over: true,
		},
		"the end was passed over": {
			told:  []string{`{"sid":"s-1","state":"active"}`, `{"sid":"s-2","state":"active"}`},
			notes: []string{"active"}, over: true, code: bw.Denied,
		},
		"a reason of a later version": {
			told:  []string{`{"sid":"s-1","state":"active"}`, `{"sid":"s-1","state":"terminated","reason":"\u001b[31mwhy"}`},
			notes: []string{"active"}, over: true, code: bw.Denied,
		},
		"of one's own there is none": {told: []string{``}},
		"of another version":         {told: []string{`[]`, `{"state":3}`}},
	} {
		t.Run(name, func(t *testing.T) {
			var notes strings.Builder
			s := newStanding([]string{"presence/example.com/ana"}, &notes, func() time.Time { return now })
			for _, payload := range x.told {
				s.hear(&paho.Publish{Topic: "$me/sub/presence/example.com/ana", Payload: []byte(payload)})
			}
			s.answered("presence/example.com/ana", true)
			s.hear(&paho.Publish{Topic: "$me/sub/presence/example.com/zoe", Payload: []byte(`{"sid":"s-9","state":"active"}`)})
			var want strings.Builder
			for _, note := range x.notes {
				fmt.Fprintf(&want, "bellwire: %s%s\n", who, note)
			}
			if notes.String() != want.String() {
				t.Errorf("told %q, want %q", notes.String(), want.String())
			}
			over, became := s.over()
			f, _ := errors.AsType[*fault](became)
			if over != x.over || (f != nil) != (x.code != 0) || f != nil && (f.code != x.code || !strings.Contains(f.todo, x.todo) || !strings.HasPrefix(f.what, who)) {
				t.Errorf("over %v, %+v, want %v, %v", over, f, x.over, x.code)
			}
		})
	}
}

// Of several subscriptions each end is told, and the last ends the watch: what was refused
// at once counts as ended. A session that has begun anew has new ones.
func TestStandingOfSeveral(t *testing.T) {
	var notes strings.Builder
	s := newStanding([]string{"presence/d.example/a", "presence/d.example/b", "presence/d.example/c"}, &notes, time.Now)
	hear := func(who, payload string) {
		s.hear(&paho.Publish{Topic: "$me/sub/presence/d.example/" + who, Payload: []byte(payload)})
	}
	hear("a", `{"sid":"s-a","state":"terminated","reason":"timeout"}`) // of an earlier one
	s.answered("presence/d.example/a", false)
	s.answered("presence/d.example/b", true)
	s.answered("presence/d.example/c", true)
	if notes.Len() > 0 {
		t.Errorf("told %q", &notes)
	}
	hear("b", `{"sid":"s-b","state":"active"}`)
	hear("c", `{"sid":"s-c","state":"active"}`)
	hear("b", `{"sid":"s-b","state":"terminated","reason":"deactivated"}`)
	if over, _ := s.over(); over || !strings.HasSuffix(notes.String(), "presence of b@d.example: its owner has ended the subscription\n") {
		t.Errorf("over %v after %q", over, &notes)
	}
	hear("c", `{"sid":"s-c","state":"terminated","reason":"timeout"}`)
	if over, became := s.over(); !over || became == nil || became.Error() != "all 3 subscriptions are over" || !strings.HasSuffix(notes.String(), "c@d.example: its time is over\n") {
		t.Errorf("over %v, %v after %q", over, became, &notes)
	}
	s.again()
	hear("b", `{"sid":"s-d","state":"active"}`)
	if over, _ := s.over(); over {
		t.Errorf("a new session has ended")
	}
}

// notes takes what a verb tells while it runs.
type notes struct {
	wrote chan<- struct{} // has room for one: something was written
	mu    sync.Mutex
	text  strings.Builder
}

func (n *notes) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.text.Write(b)
	select {
	case n.wrote <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}

// Who watches learns on standard error that nobody has decided, that it is granted, and
// that it is over; earlier subscriptions are not told of. Standard output has documents
// only.
func TestWatchTellsHowItStands(t *testing.T) {
	port := startDev(t)
	as := func(who, stdin string, args ...string) {
		t.Helper()
		if got := bellwire(t, stdin, append(args, "-p", port, "-u", who+"@example.com")...); got.code != 0 {
			t.Fatalf("%s %q: %+v", who, args, got)
		}
	}
	as("ana", `{"v":1,"defaults":{"handling":"confirm"}}`, "policy", "set", "presence", "-")
	as("ana", "", "presence", "set", "busy")
	for range 2 { // the second time there is an earlier subscription, which has been ended
		wrote, ended := make(chan struct{}, 1), make(chan int, 1)
		told, shown := &notes{wrote: wrote}, &notes{wrote: wrote}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() {
			ended <- run(ctx, []string{"presence", "watch", "ana", "-p", port, "-u", "bo@example.com"}, strings.NewReader(""), shown, told)
		}()
		wait := func(what *notes, pattern string) {
			t.Helper()
			for re := regexp.MustCompile(pattern); !re.MatchString(what.String()); {
				select {
				case code := <-ended:
					t.Fatalf("ended with %d: %s%s", code, shown, told)
				case <-ctx.Done():
					t.Fatalf("%s: %s%s", pattern, shown, told)
				case <-wrote:
				}
			}
		}
		const asked = `^bellwire: presence of ana@example\.com: asked for; it is not decided yet, and nothing is shown until it is\n`
		wait(told, asked+`$`)
		if shown.String() != "" {
			t.Errorf("before it is decided %q is shown", shown)
		}
		as("ana", "", "watchers", "approve", "bo")
		wait(shown, `ana@example\.com +busy`)
		wait(told, asked+`bellwire: presence of ana@example\.com: active\n$`)
		as("ana", `{"v":1,"defaults":{"handling":"confirm"}}`, "policy", "set", "presence", "-")
		as("ana", "", "watchers", "revoke", "bo")
		if code := <-ended; code != exitDenied || !regexp.MustCompile(`(?s)its owner has ended the subscription\n  .*again.*BW-4003\n$`).MatchString(told.String()) {
			t.Errorf("ended with %d: %s", code, told)
		}
		if strings.Contains(shown.String(), "bellwire:") {
			t.Errorf("shown: %s", shown)
		}
	}
}
