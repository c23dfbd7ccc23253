package state

import (
	"time"

	"github.com/bellwire/bellwire/broker"
)

// Connected keeps what a client bound to its last connection: it is back in
// time, or has taken that over.
func (p *Profile) Connected(tx *broker.ProfileTx, client string, _ broker.Connection) {
	of := getBound(tx, client)
	if of == nil || of.gone == 0 {
		return
	}
	tx.Cancel(of.gone, boundPrefix+client)
	of.gone = 0
	of.set(tx, client)
}

// Disconnected removes what a client bound to its connection if it said that it
// goes, and gives it some time if it did not.
func (p *Profile) Disconnected(tx *broker.ProfileTx, client string, _ broker.Connection, lost bool) {
	of := getBound(tx, client)
	if of == nil {
		return
	}
	if lost {
		of.gone = tx.Now() + int64(LostAfter)
		tx.WakeAt(of.gone, boundPrefix+client)
		of.set(tx, client)
		return
	}
	p.unbind(tx, client, of, func(*publication) bool { return false })
}

// giveUp declares lost what a client bound to a connection that was lost.
func (p *Profile) giveUp(tx *broker.ProfileTx, client string) {
	of := getBound(tx, client)
	if of == nil || of.gone == 0 || of.gone > tx.Now() {
		return
	}
	now := time.Unix(0, tx.Now()).UTC()
	p.unbind(tx, client, of, func(pub *publication) bool {
		pub.Publication = *pub.Lose(pub.Bound, now)
		pub.Expires = now.Add(pub.life)
		return true
	})
}

// unbind ends the bond between a client and its publications, and keeps those
// that keep says.
func (p *Profile) unbind(tx *broker.ProfileTx, client string, of *bound, keep func(*publication) bool) {
	for _, topicName := range of.topics {
		rec := readRecord(tx.Get(topicName))
		for i := 0; i < len(rec.pubs); i++ {
			pub := &rec.pubs[i]
			if pub.Bound.Client != client || !pub.Lost.IsZero() {
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
	of.set(tx, client)
}
