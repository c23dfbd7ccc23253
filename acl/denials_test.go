package acl

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// counting returns a source of ids that differ.
func counting() func() uint32 {
	n := uint32(0)
	return func() uint32 { n++; return n * 2654435761 }
}

var deniedAt = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func anotherPolicy(t *testing.T) *Policy {
	t.Helper()
	p, err := Parse("policy.yaml", []byte("rules:\n  - {id: no, deny: [publish], who: [anyone], topic: [\"#\"]}\n"), "")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What is refused again and again is one denial, told at its newest instant; another
// client, topic or policy makes another.
func TestDenialsAreOneForACause(t *testing.T) {
	n, p := NewDenials("n1", counting()), anotherPolicy(t)
	ask := func(p *Policy, client, topic string, after time.Duration) string {
		id, _ := n.Note(p, Denial{Who: Who{"ana@x.org", client}, Topic: topic, Last: deniedAt.Add(after), Rule: "no", Line: 2, Reason: "rule no denies it"})
		return id
	}
	first := ask(p, "c", "a", 0)
	if again := ask(p, "c", "a", time.Minute); again != first {
		t.Errorf("the same refusal is %s and %s", first, again)
	}
	ask(p, "c", "a", time.Second) // an older one that comes later
	for what, other := range map[string]string{"client": ask(p, "d", "a", 0), "topic": ask(p, "c", "b", 0), "policy": ask(anotherPolicy(t), "c", "a", 0)} {
		if other == first {
			t.Errorf("the refusal of another %s has the same id", what)
		}
	}
	d, ok := n.Find(first)
	if !ok || d.Times != 3 || !d.First.Equal(deniedAt) || !d.Last.Equal(deniedAt.Add(time.Minute)) {
		t.Errorf("%+v, %t", d, ok)
	}
	text := d.Text(nil)
	for _, want := range []string{first, "3 times since 2026-11-23T12:00:00Z", "DENY    publish a   as ana@x.org", "by       no", "policy.yaml:2"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// The memory is bounded by number and bytes; the oldest goes, and is counted.
func TestDenialsAreBounded(t *testing.T) {
	p := anotherPolicy(t)
	for name, c := range map[string]struct{ topic, want int }{"number": {8, MaxDenials}, "bytes": {64 << 10, maxDeniedBytes / (64<<10 + 20)}} {
		n := NewDenials("n1", counting())
		var ids []string
		for i := range MaxDenials + 500 {
			topic := fmt.Sprintf("%0*d", c.topic, i)
			id, fresh := n.Note(p, Denial{Who: Who{Client: "c"}, Topic: topic, Last: deniedAt, Reason: "no"})
			if !fresh {
				t.Fatalf("%s: %d is not new", name, i)
			}
			ids = append(ids, id)
		}
		known, lost := n.Counts()
		if known > c.want+1 || known < c.want-50 || lost != uint64(len(ids)-known) {
			t.Errorf("%s: %d are known, %d were lost; want about %d, and all others", name, known, lost, c.want)
		}
		for i, id := range ids {
			if _, ok := n.Find(id); ok != (i >= len(ids)-known) {
				t.Fatalf("%s: %d of %d known: %t", name, i, len(ids), ok)
			}
		}
		if got := len(n.byCause); got != known {
			t.Errorf("%s: %d causes of %d", name, got, known)
		}
		n.bytes -= func() (sum int) {
			for _, d := range n.byID {
				sum += d.size()
			}
			return sum
		}()
		if n.bytes != 0 {
			t.Errorf("%s: %d bytes are counted and not there", name, n.bytes)
		}
	}
}

// Denials let go of the policies that others have followed, and still say what they
// know.
func TestDenialsLetGoOfPolicies(t *testing.T) {
	n := NewDenials("n1", counting())
	var first string
	for i := range MaxDeniedPolicies + 1 {
		id, _ := n.Note(anotherPolicy(t), Denial{Topic: "a", Last: deniedAt, Rule: "no", Line: 2, Reason: "rule no denies it"})
		if i == 0 {
			first = id
		}
	}
	d, ok := n.Find(first)
	if !ok || d.Policy != nil {
		t.Fatalf("%+v, %t", d, ok)
	}
	if text := d.Text(nil); !strings.Contains(text, "by       no") || !strings.Contains(text, "rule no denies it") {
		t.Error(text)
	}
	if text := d.Text(anotherPolicy(t)); !strings.Contains(text, "everybody is listed") {
		t.Error(text)
	}
}

// An id says which node to ask, and nothing of those before and after it; it is read
// as people write it.
func TestDenialIDs(t *testing.T) {
	n := NewDenials("7f1c", func() uint32 { return 0xFFFFFFFF })
	id, _ := n.Note(anotherPolicy(t), Denial{Topic: "a"})
	if want := DenialTag("7f1c") + "ZZZZZZ"; id != want {
		t.Errorf("%s, want %s", id, want)
	}
	for in, want := range map[string]string{"7q2mk3xd": "7Q2MK3XD", "OIL00000": "01100000", "7Q2M": "", "7Q2MK3X!": "", "7Q2MK3XU": "", "": ""} {
		if got, ok := ParseDenialID(in); got != want && ok || ok != (want != "") {
			t.Errorf("%q: %q, %t, want %q", in, got, ok, want)
		}
	}
	tags := map[string]bool{}
	for i := range 100 {
		tags[DenialTag(fmt.Sprintf("%08x-44b4-4c1e-9c50-d1b4f1b1a3c5", i*7919))] = true
	}
	if len(tags) < 90 {
		t.Errorf("100 nodes have %d tags", len(tags))
	}
}
