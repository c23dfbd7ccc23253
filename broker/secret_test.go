package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/secret"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/disk"
)

// A cluster has a secret from the command on that raises its level far enough, and
// for good: the first one that was ordered, on all nodes, after a restart, in a copy.
func TestSecretIsState(t *testing.T) {
	fs := disk.Memory()
	n1, n2 := openMachine(t, fs, "/data/n1", "n1"), openMachine(t, disk.Memory(), "/data/n2", "n2")
	d := drive(t, n1, n2)
	d.entry(raising(LevelSecret - 1))
	if n1.secret != nil || n1.secretNow() != nil {
		t.Error("there is a secret below the level that brings it")
	}
	first, second := secret.New(), secret.New()
	d.entry(&event.Raise{Level: uint8(LevelSecret), Secret: first}, &event.Raise{Level: uint8(NewestLevel), Secret: second})
	check := func(of string, m *machineUnderTest) {
		t.Helper()
		if !bytes.Equal(m.secret, first) || !bytes.Equal(m.secretNow(), first) {
			t.Errorf("%s does not have the secret that was ordered first", of)
		}
	}
	check("a node", n1)
	check("another", n2)
	if _, _, err := n1.Checkpoint("/data/copy"); err != nil {
		t.Fatal(err)
	}
	if err := n1.load(); err != nil {
		t.Fatal(err)
	}
	check("a node that is started again", n1)
	copied := openMachine(t, fs, "/data/copied", "n3")
	defer copied.close(t)
	if err := copied.Restore("/data/copy"); err != nil {
		t.Fatal(err)
	}
	check("a node with a copy", copied)
}

// A command that is rolled back takes the secret with it that it brought: the next
// one brings its own.
func TestSecretIsRolledBack(t *testing.T) {
	m := openMachine(t, disk.Memory(), "/data/state", "n1")
	d := drive(t, m)
	m.raised = func(Level) {
		m.raised = func(Level) {}
		panic("no room to write it down")
	}
	next := secret.New()
	a := d.entry(raising(LevelSecret), &event.Raise{Level: uint8(LevelSecret), Secret: next})
	if !errors.Is(a[0].err, ErrFailed) || a[1].err != nil {
		t.Errorf("answers %v and %v, want %v and none", a[0].err, a[1].err, ErrFailed)
	}
	for range 2 {
		if !bytes.Equal(m.secret, next) || !bytes.Equal(m.secretNow(), next) {
			t.Error("the secret is not that of the command which was not rolled back")
		}
		must(t, m.load())
	}
}

// A state that ought to have a secret and has none, as that of a program from before
// there was one, is refused, and it is said what to do.
func TestStateWithoutItsSecret(t *testing.T) {
	m := openMachine(t, disk.Memory(), "/data/state", "n1")
	d := drive(t, m)
	d.entry(raising(NewestLevel))
	for _, v := range [][]byte{nil, make([]byte, secret.Size-1)} {
		tx := m.store.Begin()
		tx.Set(secretKey, v)
		if v == nil {
			tx.Delete(secretKey)
		}
		tx.Commit()
		if err := m.load(); !errors.Is(err, store.ErrDamaged) && !errors.Is(err, event.ErrDamaged) {
			t.Errorf("of %d bytes: %v, want that it is damaged", len(v), err)
		}
	}
}

// What a node draws is the cluster's, and another for each cluster.
func TestSecretIsDrawn(t *testing.T) {
	drawn := func() secret.Secret {
		n := bareNode(t, Limits{})
		n.serve()
		defer n.stop(true)
		if err := n.Raise(context.Background(), LevelSecret-1); err != nil || n.Secret() != nil {
			t.Errorf("%d bytes, %v, want none below level %d", len(n.Secret()), err, LevelSecret)
		}
		if err := n.Raise(context.Background(), NewestLevel); err != nil {
			t.Fatal(err)
		}
		return n.Secret()
	}
	if a, b := drawn(), drawn(); len(a) != secret.Size || len(b) != secret.Size || bytes.Equal(a, b) {
		t.Errorf("%d and %d bytes, the same: %v", len(a), len(b), bytes.Equal(a, b))
	}
}

// keyedNotes shows notes with the beginning of a key, and tells in its
// acknowledgements what each door to the secret has.
type keyedNotes struct{ notes }

func keyOf(s secret.Secret) string {
	if s == nil {
		return "no key"
	}
	key := s.Derive("notes")
	return fmt.Sprintf("%x", key[:4])
}

func (k keyedNotes) LoadKeyed(name string, record, policy []byte, of secret.Secret) Resource {
	return k.Load(name, append([]byte(keyOf(of)+" "), record...), policy)
}

func (k keyedNotes) Admit(p *Publication) error {
	if len(p.Event.Payload) > 0 {
		p.Event.Payload = fmt.Appendf(nil, "%s, admitted with %s", p.Event.Payload, keyOf(p.Secret()))
	}
	return k.notes.Admit(p)
}

func (k keyedNotes) Apply(tx *ProfileTx, p *Publication) error {
	tx.Set("applied", []byte(keyOf(tx.Secret())))
	tx.Set("tags", []byte(tx.Tag("note")+" "+tx.Tag("note")))
	return k.notes.Apply(tx, p)
}

// A profile has the secret where it admits, applies and shows; what was loaded
// without it is loaded again.
func TestProfilesHaveTheSecret(t *testing.T) {
	n := bareNode(t, Limits{}, keyedNotes{})
	n.serve()
	defer n.stop(true)
	n.policy("all")
	bob := n.person("bob", 0)
	check := func(key string) {
		t.Helper()
		if err := bob.publish("note/x.org/bob", "hi", 1); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("%s hi, admitted with %s", key, key)
		if s, err := n.Fetch(Who{Principal: "bob@x.org"}, "note/x.org/bob"); err != nil || string(s.Payload) != want {
			t.Errorf("shown %q, %v, want %q", s.Payload, err, want)
		}
		if got := n.profileValue("note", "applied"); string(got) != key {
			t.Errorf("applied with %q, want %q", got, key)
		}
		// What falls due in one entry has one place in the log: their tags are two all the same.
		one, two, _ := strings.Cut(string(n.profileValue("note", "tags")), " ")
		if secret := n.Secret() != nil; secret != (one != two) || secret && len(one) != 24 {
			t.Errorf("tags %q and %q", one, two)
		}
	}
	check("no key")
	if err := n.Raise(context.Background(), NewestLevel); err != nil {
		t.Fatal(err)
	}
	n.catchUp()
	key := keyOf(n.Secret())
	if s, err := n.Fetch(Who{Principal: "bob@x.org"}, "note/x.org/bob"); err != nil || string(s.Payload) != key+" hi, admitted with no key" {
		t.Errorf("shown %q, %v as soon as there is a secret, want it with the key %s", s.Payload, err, key)
	}
	check(key)
}
