package alias

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/watchers"
)

var (
	alice = kind.Addr{Local: "alice", Domain: "example.net"}
	bob   = kind.Addr{Local: "bob", Domain: "example.com"}
	carol = kind.Addr{Local: "carol", Domain: "example.com"}
	noon  = time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
)

// secret is the one of the computed vectors: 00 to 1f.
func secret() watchers.Secret {
	s := make(watchers.Secret, 32)
	for i := range s {
		s[i] = byte(i)
	}
	return s
}

// A memory is a Tx on a map.
type memory struct {
	t     *testing.T
	now   int64
	keys  map[string][]byte
	wakes map[string]int64
}

func (m *memory) Now() int64            { return m.now }
func (m *memory) Get(key string) []byte { return m.keys[key] }

func (m *memory) Set(key string, value []byte) {
	if m.keys[key] = slices.Clone(value); len(value) == 0 {
		delete(m.keys, key)
	}
}

func (m *memory) WakeAt(at int64, id string) {
	if other, ok := m.wakes[id]; ok {
		m.t.Errorf("%q is woken at %d and %d", id, other, at)
	}
	m.wakes[id] = at
}

func (m *memory) Cancel(at int64, id string) {
	if m.wakes[id] != at {
		m.t.Errorf("%q is not woken at %d", id, at)
	}
	delete(m.wakes, id)
}

func (m *memory) PolicyOf(owner string) []byte { return m.keys["rules of "+owner] }

func newBook(t *testing.T) (Book, *memory) {
	m := &memory{t: t, now: noon.UnixNano(), keys: map[string][]byte{}, wakes: map[string]int64{}}
	return Book{m, secret()}, m
}

// pass moves the clock and wakes what is due.
func (m *memory) pass(b Book, d time.Duration) {
	m.now += int64(d)
	for id, at := range m.wakes {
		if at <= m.now {
			delete(m.wakes, id)
			b.Wake(id)
		}
	}
}

func (m *memory) reaches(name, sender kind.Addr) bool {
	_, ok := Reaches(m.Get, name, sender, m.now)
	return ok
}

// A pseudonym reaches its watcher for its target, while it is held and for its time
// after, and is an address that nobody has for all others and afterwards. A subscription
// that begins meanwhile renews it.
func TestLifeOfAPseudonym(t *testing.T) {
	b, m := newBook(t)
	name, err := b.Hold(alice, bob)
	if err != nil || name.String() != "p-mk2te2abejor37bp3bfir6sd@example.net" {
		t.Fatal(name, err)
	}
	if again, err := b.Hold(alice, bob); err != nil || again != name {
		t.Fatal(again, err)
	}
	is := func(what string, want bool) {
		t.Helper()
		if got := m.reaches(name, bob); got != want {
			t.Errorf("%s: it reaches her: %v", what, got)
		}
		if m.reaches(name, carol) || m.reaches(name, alice) {
			t.Errorf("%s: it is somebody else's to write to", what)
		}
	}
	m.pass(b, 365*24*time.Hour)
	is("held twice", true)
	b.Release(name)
	m.pass(b, 365*24*time.Hour)
	is("held once", true)
	b.Release(name)
	b.Release(name) // of what is not held: nothing
	m.pass(b, Lasts-time.Second)
	is("its time is not over", true)
	if _, err := b.Hold(alice, bob); err != nil {
		t.Fatal(err)
	}
	m.pass(b, Lasts)
	is("renewed", true)
	b.Release(name)
	if !Speaks(m.Get, name, alice, bob, m.now) || Speaks(m.Get, name, carol, bob, m.now) || Speaks(m.Get, name, alice, carol, m.now) {
		t.Error("in its name speaks somebody else, or not she")
	}
	m.pass(b, Lasts)
	is("its time is over", false)
	if who, ok := Behind(m.Get, name); !ok || who != alice || Speaks(m.Get, name, alice, bob, m.now) {
		t.Error("whose it was is not known any more, or she still speaks in its name")
	}
	m.pass(b, KeptFor)
	if len(m.keys)+len(m.wakes) > 0 {
		t.Errorf("there is left %q, %v", m.keys, m.wakes)
	}
}

// Rules bound how long a pseudonym lasts, and how many messages may come to it.
func TestPseudonymsHaveBounds(t *testing.T) {
	b, m := newBook(t)
	m.keys["rules of "+alice.String()] = []byte(`{"v":1,"pseudonyms":{"expires":60,"uses":2}}`)
	name, _ := b.Hold(alice, bob)
	for i, want := range []bool{true, true, false} {
		if _, ok := b.Use(name, carol); ok {
			t.Error("it takes what is not its target's")
		}
		if who, ok := b.Use(name, bob); ok != want || ok && who != alice {
			t.Errorf("use %d: %v, %v", i, who, ok)
		}
	}
	m.keys["rules of "+alice.String()] = []byte(`{"v":1,"pseudonyms":{"expires":60}}`)
	_, _ = b.Hold(alice, bob) // renewed: by what the rules say now
	if !m.reaches(name, bob) {
		t.Error("it is used up although rules say that it may be used")
	}
	b.Release(name)
	b.Release(name)
	m.pass(b, time.Minute-1)
	if !m.reaches(name, bob) {
		t.Error("it is over too soon")
	}
	if m.pass(b, 1); m.reaches(name, bob) {
		t.Error("it is not over in time")
	}
}

// A fresh one is another, and what the target blocked bars the next for a month.
func TestRotation(t *testing.T) {
	b, m := newBook(t)
	old, _ := b.Hold(alice, bob)
	if err := b.Rotate(alice, bob, false); err != nil {
		t.Fatal(err)
	}
	fresh, err := b.Hold(alice, bob)
	if err != nil || fresh == old || b.Name(alice, bob) != fresh {
		t.Fatal(fresh, err)
	}
	b.Release(old)
	if !m.reaches(old, bob) || !m.reaches(fresh, bob) {
		t.Error("the old one does not last, or the fresh one does not hold")
	}
	if err := b.Rotate(alice, bob, true); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Hold(alice, bob); !errors.Is(err, ErrBarred) {
		t.Errorf("a third after a block: %v", err)
	}
	if _, err := b.Hold(alice, carol); err != nil {
		t.Errorf("another target: %v", err)
	}
	m.pass(b, BarredFor-1)
	if _, err := b.Hold(alice, bob); !errors.Is(err, ErrBarred) {
		t.Errorf("a month less a moment later: %v", err)
	}
	m.pass(b, 1)
	if third, err := b.Hold(alice, bob); err != nil || third == fresh || third == old {
		t.Errorf("a month later: %v, %v", third, err)
	}
}

// Both what there is of one watcher and how often she asks for a fresh one is bounded;
// who is refused changes nothing.
func TestPseudonymsAreBounded(t *testing.T) {
	b, m := newBook(t)
	for i := range MostNames {
		if _, err := b.Hold(alice, kind.Addr{Local: fmt.Sprint("u", i), Domain: "example.com"}); err != nil {
			t.Fatal(i, err)
		}
	}
	keys := len(m.keys)
	if _, err := b.Hold(alice, bob); !errors.Is(err, ErrQuota) || len(m.keys) != keys {
		t.Errorf("one more: %v, %d keys of %d", err, len(m.keys), keys)
	}
	if _, err := b.Hold(carol, bob); err != nil {
		t.Errorf("somebody else's first: %v", err)
	}
	for range MostTurns {
		if err := b.Rotate(alice, bob, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Rotate(alice, bob, false); !errors.Is(err, ErrQuota) {
		t.Errorf("one more turn: %v", err)
	}
}

// However holds, releases, turns and time follow each other, a pseudonym reaches its
// watcher exactly while it is held or its time is not over, and in the end nothing is
// left but what was turned.
func TestPseudonymsModel(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	b, m := newBook(t)
	held, until := map[kind.Addr]int{}, map[kind.Addr]int64{}
	for range 5000 {
		switch r.IntN(5) {
		case 0, 1:
			name, err := b.Hold(alice, bob)
			if err != nil {
				t.Fatal(err)
			}
			held[name]++
		case 2:
			for name, n := range held {
				if n > 0 {
					if b.Release(name); n == 1 {
						until[name] = m.now + int64(Lasts)
					}
					held[name]--
					break
				}
			}
		case 3:
			if r.IntN(20) == 0 {
				if err := b.Rotate(alice, bob, false); err != nil {
					t.Fatal(err)
				}
			}
		case 4:
			m.pass(b, time.Duration(r.Int64N(int64(Lasts))))
		}
		for name, n := range held {
			if want := n > 0 || until[name] > m.now; m.reaches(name, bob) != want {
				t.Fatalf("held %d times, its time ends at %d, it is %d: it reaches her: %v", n, until[name], m.now, !want)
			}
		}
	}
	for name, n := range held {
		for range n {
			b.Release(name)
		}
	}
	m.pass(b, Lasts+KeptFor)
	if len(m.keys) != 1 || m.keys[pairKey(alice, bob)] == nil {
		t.Errorf("there is left %q", m.keys)
	}
}

// Records read as they were written, in the form that is on disk.
func TestFormsOnDisk(t *testing.T) {
	n := Name{Watcher: alice, Target: bob, Until: 1 << 60, Held: 300, Uses: 7, Most: 20, wake: 1<<60 + 1}
	const name = "01" + "11" + "616c696365406578616d706c652e6e6574" + "0f" + "626f62406578616d706c652e636f6d" + "1000000000000000" + "1000000000000001" + "ac02" + "07" + "14"
	if got := hex.EncodeToString(n.encode()); got != name {
		t.Errorf("a name is written as %s, want %s", got, name)
	}
	if got := readName(n.encode()); *got != n {
		t.Errorf("a name reads as %+v, want %+v", *got, n)
	}
	p := pair{turn: 300, barred: 1 << 60}
	if got := hex.EncodeToString(p.encode()); got != "01"+"ac02"+"1000000000000000" {
		t.Errorf("a pair is written as %s", got)
	}
	if got := readPair(p.encode()); got != p {
		t.Errorf("a pair reads as %+v, want %+v", got, p)
	}
}

// What a watcher keeps to herself is not in her row, and her name is never in that of
// a pseudonym.
func TestRules(t *testing.T) {
	row := watchers.Row{ID: "s", Watcher: alice, Status: watchers.Active, Event: "approved", Since: noon, Expires: noon.Add(time.Minute)}
	pseudonym := row
	pseudonym.Watcher, pseudonym.Visibility = secret().Pseudonym(alice, bob, 0), watchers.Pseudonymous
	for _, c := range []struct {
		document, has, not string
		row                watchers.Row
	}{
		{`{"v":1}`, `"since":"2026-03-09T12:00:00Z","expires":60`, `"name"`, row},
		{`{"v":1,"revealExpiry":false}`, `"since"`, `"expires"`, row},
		{`{"v":1,"revealSince":false,"entity":"pres:alice@example.net","kind":"watcher"}`, `"expires":60`, `"since"`, row},
		{`{"v":1,"displayName":"Alice"}`, `"name":"Alice"`, "-", row},
		{`{"v":1,"displayName":"Alice","revealSince":true,"revealExpiry":true}`, `"expires":60`, "Alice", pseudonym},
	} {
		r, err := ReadRules([]byte(c.document), alice)
		if err != nil {
			t.Fatal(err)
		}
		shown := r.Over(c.row)
		got := string(shown.JSON("pres", noon))
		if !strings.Contains(got, c.has) || strings.Contains(got, c.not) && c.not != "-" {
			t.Errorf("%s: %s, want %s and not %s", c.document, got, c.has, c.not)
		}
	}
	for _, c := range []struct{ document, want string }{
		{`{"v":1,"entity":"pres:bob@example.com"}`, "entity-mismatch"},
		{`{"v":2}`, "schema"},
		{`{}`, "schema"},
		{`[]`, "schema"},
		{`{"v":1,"pseudonyms":{"expires":1}}`, "schema"},
		{`{"v":1,"pseudonyms":{"uses":0}}`, "schema"},
		{`{"v":1,"pseudonyms":{"lasts":100}}`, "schema"},
		{`{"v":1,"revealExpiry":"no"}`, "schema"},
		{`{"v":1,"revealIp":false}`, "schema"},
		{`{"v":1,"displayName":"` + strings.Repeat("a", MaxName+1) + `"}`, "schema"},
		{`{"v":1,"displayName":"` + strings.Repeat("a", 5000) + `"}`, "too-large"},
	} {
		if _, err := ReadRules([]byte(c.document), alice); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60s: %v, want %s", c.document, err, c.want)
		}
	}
}
