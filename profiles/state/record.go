package state

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/profiles/fields"
	"github.com/bellwire/bellwire/profiles/kind"
)

// A record is what is stored of a resource: its publications by source, sorted.
type record struct {
	wake int64 // when the profile is woken for it, 0 for never
	pubs []publication
}

// A publication is one source's.
type publication struct {
	kind.Publication

	// life is, of a bound one, how long it is known after its connection has
	// ended: while that lasts, Expires is the end of a delegation, or zero.
	life time.Duration

	// weight is the kind's for Doc, see MaxWeight; 0 if it has not been weighed yet.
	weight int
}

func (r *record) find(source string) (at int, old *publication) {
	at, ok := slices.BinarySearchFunc(r.pubs, source, func(p publication, s string) int { return strings.Compare(p.Source, s) })
	if !ok {
		return at, nil
	}
	return at, &r.pubs[at]
}

func (r *record) remove(at int) { r.pubs = slices.Delete(r.pubs, at, at+1) }

// hasRoom says what keeps a source's new publication from being put in the place of old,
// nil for none, whatever it weighs.
func (r *record) hasRoom(old *publication, new *kind.Publication) error {
	size := len(new.Doc.Body)
	for i := range r.pubs {
		if &r.pubs[i] != old {
			size += len(r.pubs[i].Doc.Body)
		}
	}
	switch {
	case size > MaxRecord:
		return &broker.Refusal{Cause: broker.ErrQuota, Reason: fmt.Sprintf("all sources together would have %d bytes: at most %d are kept", size, MaxRecord)}
	case old == nil && len(r.pubs) >= MaxSources:
		return &broker.Refusal{Cause: broker.ErrQuota, Reason: fmt.Sprintf("it has %d sources: remove one, or give them names that last", len(r.pubs))}
	}
	return nil
}

// set puts a source's new publication, whose publisher may publish it until an
// instant (zero: for good), in the place of old, nil for none.
func (r *record) set(at int, old *publication, new *kind.Publication, weight int, until time.Time) {
	p := publication{Publication: *new, weight: weight}
	if !p.Bound.IsZero() {
		p.life = p.Expires.Sub(p.Published)
	}
	p.endBy(until)
	if old != nil {
		*old = p
	} else {
		r.pubs = slices.Insert(r.pubs, at, p)
	}
}

// bound says whether the publication is bound to a connection, and has not been
// given up.
func (p *publication) bound() bool { return !p.Bound.IsZero() && p.Lost.IsZero() }

func (p *publication) boundBy(b binder) bool { return p.bound() && p.binder() == b }

// endBy has the publication end when its publisher may no longer publish it, if
// it does not before; zero: they may for good.
func (p *publication) endBy(until time.Time) {
	if p.bound() || !until.IsZero() && until.Before(p.Expires) {
		p.Expires = until
	}
}

func (p *publication) binder() binder { return binder{p.Bound.Client, p.Publisher} }

// bound says whether b has a bound publication here.
func (r *record) bound(b binder) bool {
	return slices.ContainsFunc(r.pubs, func(p publication) bool { return p.boundBy(b) })
}

// firstExpiry returns when the first publication expires, 0 for never.
func (r *record) firstExpiry() (first int64) {
	for i := range r.pubs {
		if at := kind.Nanos(r.pubs[i].Expires); at != 0 && (first == 0 || at < first) {
			first = at
		}
	}
	return first
}

// publications returns the publications as a kind composes them.
func (r *record) publications() []kind.Publication {
	pubs := make([]kind.Publication, len(r.pubs))
	for i := range r.pubs {
		pubs[i] = r.pubs[i].Publication
	}
	return pubs
}

// The binary form of a record, of which fields are only ever appended to a new
// version:
//
//	version u8 = 1 or 2, wake 8, count uvarint, then for each publication:
//	source, publisher, etag: strings; published, expires, life, lost: 8 each
//	bound client: string, bound epoch: uvarint; content type, body: strings
//	if 2: weight uvarint
//
// Version 2 came with broker.LevelWeights, and is what is written from then on.
const (
	recordVersion  = 1
	recordWeighted = 2
)

func (r *record) encode(version byte) []byte {
	b := []byte{version}
	b = fields.AppendInt64(b, r.wake)
	b = binary.AppendUvarint(b, uint64(len(r.pubs)))
	for i := range r.pubs {
		p := &r.pubs[i]
		b = fields.AppendText(b, p.Source)
		b = fields.AppendText(b, p.Publisher.String())
		b = fields.AppendText(b, p.ETag)
		for _, at := range []int64{kind.Nanos(p.Published), kind.Nanos(p.Expires), int64(p.life), kind.Nanos(p.Lost)} {
			b = fields.AppendInt64(b, at)
		}
		b = fields.AppendText(b, p.Bound.Client)
		b = binary.AppendUvarint(b, p.Bound.Epoch)
		b = fields.AppendText(b, p.Doc.ContentType)
		b = fields.AppendText(b, p.Doc.Body)
		if version >= recordWeighted {
			b = binary.AppendUvarint(b, uint64(p.weight))
		}
	}
	return b
}

// readRecord reads what encode wrote; nil is an empty record. What it returns
// aliases b.
func readRecord(b []byte) *record {
	r := &record{}
	if b == nil {
		return r
	}
	version := min(b[0], recordWeighted)
	in := fields.Read(b, version)
	r.wake = in.Int64()
	for range in.Uvarint() {
		var p publication
		p.Source, p.Publisher, p.ETag = in.Text(), kind.Of(in.Text()), in.Text()
		p.Published, p.Expires = in.Time(), in.Time()
		p.life = time.Duration(in.Int64())
		p.Lost = in.Time()
		p.Bound.Client = in.Text()
		p.Bound.Epoch = in.Uvarint()
		p.Doc = kind.Document{ContentType: in.Text(), Body: in.Bytes()}
		if version >= recordWeighted {
			p.weight = int(in.Uvarint())
		}
		r.pubs = append(r.pubs, p)
	}
	in.End()
	return r
}

// A bound is what is stored of who has bound publications.
//
//	version u8 = 1, gone 8, count uvarint, topics: strings
type bound struct {
	gone   int64 // when it is given up, unless it comes back; 0 while it is connected
	topics []string
}

// boundPrefix begins what binder.key returns. No topic begins like it.
const boundPrefix = "\x02"

func getBound(tx *broker.ProfileTx, b binder) *bound {
	stored := tx.Get(b.key())
	if stored == nil {
		return nil
	}
	in := fields.Read(stored, recordVersion)
	of := &bound{gone: in.Int64()}
	for range in.Uvarint() {
		of.topics = append(of.topics, in.Text())
	}
	in.End()
	return of
}

func (of *bound) set(tx *broker.ProfileTx, b binder) {
	if len(of.topics) == 0 {
		tx.Set(b.key(), nil)
		return
	}
	value := fields.AppendInt64([]byte{recordVersion}, of.gone)
	value = binary.AppendUvarint(value, uint64(len(of.topics)))
	for _, topicName := range of.topics {
		value = fields.AppendText(value, topicName)
	}
	tx.Set(b.key(), value)
}

// noteBound notes whether b has a bound publication in a resource.
func noteBound(tx *broker.ProfileTx, b binder, topicName string, has bool) error {
	of := getBound(tx, b)
	if of == nil {
		of = &bound{}
	}
	at, known := slices.BinarySearch(of.topics, topicName)
	switch {
	case has == known:
		return nil
	case !has:
		of.topics = slices.Delete(of.topics, at, at+1)
	case len(of.topics) >= MaxBound:
		return &broker.Refusal{Cause: broker.ErrQuota, Reason: fmt.Sprintf("this client has bound publications in %d resources: publish with RETAIN or evt-bind none", MaxBound)}
	default:
		of.topics = slices.Insert(of.topics, at, topicName)
	}
	of.set(tx, b)
	return nil
}
