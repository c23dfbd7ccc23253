package alias

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/watchers"
)

// Times and bounds.
const (
	Lasts     = 7 * 24 * time.Hour  // a pseudonym after its last subscription, unless the watcher says otherwise
	BarredFor = 30 * 24 * time.Hour // a watcher from a target that has blocked a pseudonym which she has turned

	// KeptFor is how long it is known whose a pseudonym was, for reports on what was sent
	// in its name.
	KeptFor = 7 * 24 * time.Hour

	MostNames = 10_000 // of one watcher; one more is ErrQuota
	MostTurns = 1000   // of one watcher and target; likewise
)

// Errors of a Book.
var (
	ErrQuota  = errors.New("quota")
	ErrBarred = errors.New("blocked-source")
)

// A Tx is the door to the state of the alias profile, within one command:
// broker.ProfileTx is one.
type Tx interface {
	Now() int64
	Get(key string) []byte
	Set(key string, value []byte)
	WakeAt(at int64, id string)
	Cancel(at int64, id string)
	PolicyOf(owner string) []byte
}

// A Book changes pseudonyms, in log order. It is made for one command.
type Book struct {
	Tx
	Secret watchers.Secret
}

// Name returns the pseudonym by which target knows watcher, or would.
func (b Book) Name(watcher, target kind.Addr) kind.Addr {
	return b.Secret.Pseudonym(watcher, target, readPair(b.Get(pairKey(watcher, target))).turn)
}

// Hold takes note of a subscription of watcher to something of target's, under the
// pseudonym that it returns. ErrBarred: target has blocked the one before; ErrQuota: she
// has too many. Then nothing has changed.
func (b Book) Hold(watcher, target kind.Addr) (kind.Addr, error) {
	name, err := b.May(watcher, target)
	if err != nil {
		return kind.Addr{}, err
	}
	n := readName(b.Get(nameKey(name)))
	if n == nil {
		b.count(watcher, 1)
		n = &Name{Watcher: watcher, Target: target}
	}
	n.Held++
	n.Until, n.Most = 0, b.RulesOf(watcher).Uses
	b.save(name, n)
	return name, nil
}

// May returns what Hold would, and changes nothing.
func (b Book) May(watcher, target kind.Addr) (kind.Addr, error) {
	p := readPair(b.Get(pairKey(watcher, target)))
	if p.barred > b.Now() {
		return kind.Addr{}, ErrBarred
	}
	name := b.Secret.Pseudonym(watcher, target, p.turn)
	if b.Get(nameKey(name)) == nil && b.count(watcher, 0) >= MostNames {
		return kind.Addr{}, ErrQuota
	}
	return name, nil
}

// Release undoes one Hold.
func (b Book) Release(name kind.Addr) {
	n := readName(b.Get(nameKey(name)))
	if n == nil || n.Held == 0 {
		return
	}
	if n.Held--; n.Held == 0 {
		n.Until = b.Now() + int64(b.RulesOf(n.Watcher).lasts())
	}
	b.save(name, n)
}

// Rotate gives watcher a fresh pseudonym towards target: that of what she begins from
// now on. blocked says that target has blocked the one before.
func (b Book) Rotate(watcher, target kind.Addr, blocked bool) error {
	key := pairKey(watcher, target)
	p := readPair(b.Get(key))
	if p.turn >= MostTurns {
		return ErrQuota
	}
	p.turn++
	if blocked {
		p.barred = b.Now() + int64(BarredFor)
	}
	b.Set(key, p.encode())
	return nil
}

// Use takes note of a message from sender to a pseudonym, and returns who is to have
// it. ok is false if that is nobody: there never was such a pseudonym, or it is not
// sender's to write to, or its time is over, or its uses are used up.
func (b Book) Use(name, sender kind.Addr) (watcher kind.Addr, ok bool) {
	n := readName(b.Get(nameKey(name)))
	if !n.reaches(sender, b.Now()) {
		return kind.Addr{}, false
	}
	n.Uses++
	b.save(name, n)
	return n.Watcher, true
}

// reaches says whether what sender writes to the pseudonym has somebody to go to.
func (n *Name) reaches(sender kind.Addr, now int64) bool {
	return n != nil && n.Target == sender && !n.over(now) && (n.Most == 0 || n.Uses < n.Most)
}

// over says whether the pseudonym's time is.
func (n *Name) over(now int64) bool { return n.Until != 0 && n.Until <= now }

// Reaches is Use without taking note.
func Reaches(get func(key string) []byte, name, sender kind.Addr, now int64) (watcher kind.Addr, ok bool) {
	if !watchers.IsPseudonym(name) {
		return kind.Addr{}, false
	}
	n := readName(get(nameKey(name)))
	if !n.reaches(sender, now) {
		return kind.Addr{}, false
	}
	return n.Watcher, true
}

// Behind returns whose a pseudonym is or was not long ago, by what get returns of the
// profile's keys.
func Behind(get func(key string) []byte, name kind.Addr) (watcher kind.Addr, ok bool) {
	if !watchers.IsPseudonym(name) {
		return kind.Addr{}, false
	}
	n := readName(get(nameKey(name)))
	if n == nil {
		return kind.Addr{}, false
	}
	return n.Watcher, true
}

// Speaks says whether watcher may write to target in the name of a pseudonym: it is
// hers, for that target, and its time is not over.
func Speaks(get func(key string) []byte, name, watcher, target kind.Addr, now int64) bool {
	n := readName(get(nameKey(name)))
	return n != nil && n.Watcher == watcher && n.Target == target && !n.over(now)
}

// save stores a record, and has the book woken when it is to be forgotten.
func (b Book) save(name kind.Addr, n *Name) {
	key := nameKey(name)
	wake := int64(0)
	if n.Until != 0 {
		wake = n.Until + int64(KeptFor)
	}
	if wake != n.wake {
		if n.wake != 0 {
			b.Cancel(n.wake, key)
		}
		if n.wake = wake; wake != 0 {
			b.WakeAt(wake, key)
		}
	}
	b.Set(key, n.encode())
}

// Wake forgets a pseudonym.
func (b Book) Wake(id string) {
	n := readName(b.Get(id))
	if n == nil || n.wake == 0 || n.wake > b.Now() {
		return
	}
	b.Set(id, nil)
	b.count(n.Watcher, -1)
}

// count adds to how many pseudonyms a watcher has, and returns how many these are.
func (b Book) count(watcher kind.Addr, more int) int {
	key, n := countKey(watcher), 0
	if v := b.Get(key); v != nil {
		u, _ := binary.Uvarint(v)
		n = int(u)
	}
	if more == 0 {
		return n
	}
	if n += more; n <= 0 {
		b.Set(key, nil)
	} else {
		b.Set(key, binary.AppendUvarint(nil, uint64(n)))
	}
	return n
}

// RulesOf returns what a watcher lets show of herself.
func (b Book) RulesOf(watcher kind.Addr) Rules { return ReadSet(b.PolicyOf(watcher.String()), watcher) }
