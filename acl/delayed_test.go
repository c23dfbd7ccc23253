package acl

import (
	"strings"
	"testing"
	"time"
)

// What may wait for its time is as the file says, 0 where it says nothing; a comparison of
// two files tells that it changes.
func TestDelays(t *testing.T) {
	p := mustParse(t, "delayed: {longest: 1h30m, events: 1000, user_events: 10, user_bytes: 4096}")
	if d := p.Delays(); d.Longest != 5400 || d.Events != 1000 || d.Bytes != 0 || d.UserEvents != 10 || d.UserBytes != 4096 || !p.HasDelays() {
		t.Errorf("%+v", d)
	}
	none := mustParse(t, "")
	if none.HasDelays() || none.Delays() != (Delays{}) {
		t.Errorf("%+v", none.Delays())
	}
	if e := Compare(none, p, time.Unix(0, 0)).Entries; len(e) != 1 || e[0].What != "delayed" || !strings.Contains(e[0].Is, "longest 5400s") {
		t.Errorf("compared: %+v", e)
	}
}

// All faults are told, each at its line.
func TestDelaysFaults(t *testing.T) {
	_, err := Parse("policy.yaml", []byte(`delayed:
  longest: 4294968s
  events: 0
  bytes: many
  user_events: -1
  user_bytes: 1.5
  users: 3
`), "")
	bad, ok := err.(*FileError)
	if !ok {
		t.Fatal(err)
	}
	for _, line := range []string{":2:", ":3:", ":4:", ":5:", ":6:", ":7:"} {
		if !strings.Contains(bad.Error(), "policy.yaml"+line) {
			t.Errorf("no fault at %s\n%v", line, bad)
		}
	}
	for _, text := range []string{"1.5s", "500ms", "-1h", "day", "3600"} {
		if _, err := Parse("policy.yaml", []byte("delayed: {longest: "+text+"}"), ""); err == nil {
			t.Errorf("longest: %s is taken", text)
		}
	}
}
