package state

import (
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/profiles/kind"
)

// A binder is who binds publications to a connection: one client of one
// principal. Where no session is kept, anybody may have a client id once its
// connection has ended: who takes that of a device that was lost must neither
// keep what it bound, nor remove it.
type binder struct {
	client    string
	publisher kind.Addr
}

// binderOf returns who binds what who publishes.
func binderOf(who broker.Who) binder { return binder{who.Client, kind.Of(who.Principal)} }

// key is the key of its bound, and the id of the wake that gives it up. There
// is no NUL in a client id (5.0 [MQTT-1.5.4-2]).
func (b binder) key() string { return boundPrefix + b.client + "\x00" + b.publisher.String() }

// readBinder reads what key returned.
func readBinder(key string) (b binder, ok bool) {
	rest, ok := strings.CutPrefix(key, boundPrefix)
	client, publisher, _ := strings.Cut(rest, "\x00")
	return binder{client, kind.Of(publisher)}, ok
}

// Connected keeps what a client bound to its last connection: it is back in
// time, or has taken that over.
func (p *Profile) Connected(tx *broker.ProfileTx, who broker.Who, _ broker.Connection) {
	b := binderOf(who)
	of := getBound(tx, b)
	if of == nil || of.gone == 0 {
		return
	}
	tx.Cancel(of.gone, b.key())
	of.gone = 0
	of.set(tx, b)
}

// Disconnected removes what a client bound to its connection if it said that it
// goes, and gives it some time if it did not.
func (p *Profile) Disconnected(tx *broker.ProfileTx, who broker.Who, _ broker.Connection, lost bool) {
	b := binderOf(who)
	of := getBound(tx, b)
	if of == nil {
		return
	}
	if lost {
		of.gone = tx.Now() + int64(LostAfter)
		tx.WakeAt(of.gone, b.key())
		of.set(tx, b)
		return
	}
	p.unbind(tx, b, of, func(*publication) bool { return false })
}

// giveUp declares lost what a client bound to a connection that was lost.
func (p *Profile) giveUp(tx *broker.ProfileTx, b binder) {
	of := getBound(tx, b)
	if of == nil || of.gone == 0 || of.gone > tx.Now() {
		return
	}
	now := time.Unix(0, tx.Now()).UTC()
	p.unbind(tx, b, of, func(pub *publication) bool {
		until := pub.Expires
		pub.Publication = *pub.Lose(pub.Bound, now)
		pub.Expires = now.Add(pub.life)
		pub.endBy(until)
		return true
	})
}

// drop removes the publications of a record that have ended, and the bonds that
// end with them. The caller saves it.
func (p *Profile) drop(tx *broker.ProfileTx, topicName string, rec *record, ended func(*publication) bool) {
	for i := 0; i < len(rec.pubs); {
		if !ended(&rec.pubs[i]) {
			i++
			continue
		}
		was := rec.pubs[i]
		rec.remove(i)
		if was.bound() && !rec.bound(was.binder()) {
			_ = noteBound(tx, was.binder(), topicName, false) // only a new one can be refused
		}
	}
}

// unbind ends the bond between a client and its publications, and keeps those
// that keep says.
func (p *Profile) unbind(tx *broker.ProfileTx, b binder, of *bound, keep func(*publication) bool) {
	for _, topicName := range of.topics {
		rec := readRecord(tx.Get(topicName))
		for i := 0; i < len(rec.pubs); i++ {
			pub := &rec.pubs[i]
			if !pub.boundBy(b) {
				continue
			}
			if !keep(pub) {
				rec.remove(i)
				i--
			}
		}
		p.save(tx, topicName, rec)
	}
	of.topics = nil
	of.set(tx, b)
}
