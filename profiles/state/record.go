package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker"
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
}

func (r *record) find(source string) (at int, old *publication) {
	at, ok := slices.BinarySearchFunc(r.pubs, source, func(p publication, s string) int { return strings.Compare(p.Source, s) })
	if !ok {
		return at, nil
	}
	return at, &r.pubs[at]
}

func (r *record) remove(at int) { r.pubs = slices.Delete(r.pubs, at, at+1) }

// set puts a source's new publication, whose publisher may publish it until an
// instant (zero: for good), in the place of old, nil for none.
func (r *record) set(at int, old *publication, new *kind.Publication, until time.Time) error {
	p := publication{Publication: *new}
	if !p.Bound.IsZero() {
		p.life = p.Expires.Sub(p.Published)
	}
	p.endBy(until)
	size := len(p.Doc.Body)
	for i := range r.pubs {
		if &r.pubs[i] != old {
			size += len(r.pubs[i].Doc.Body)
		}
	}
	switch {
	case size > MaxRecord:
		return &broker.Refusal{Cause: broker.ErrQuota, Reason: fmt.Sprintf("all sources together would have %d bytes: at most %d are kept", size, MaxRecord)}
	case old != nil:
		*old = p
	case len(r.pubs) >= MaxSources:
		return &broker.Refusal{Cause: broker.ErrQuota, Reason: fmt.Sprintf("it has %d sources: remove one, or give them names that last", len(r.pubs))}
	default:
		r.pubs = slices.Insert(r.pubs, at, p)
	}
	return nil
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
//	version u8 = 1, wake 8, count uvarint, then for each publication:
//	source, publisher, etag: strings; published, expires, life, lost: 8 each
//	bound client: string, bound epoch: uvarint; content type, body: strings
const recordVersion = 1

func (r *record) encode() []byte {
	b := []byte{recordVersion}
	b = binary.BigEndian.AppendUint64(b, uint64(r.wake))
	b = binary.AppendUvarint(b, uint64(len(r.pubs)))
	for i := range r.pubs {
		p := &r.pubs[i]
		b = appendText(b, p.Source)
		b = appendText(b, p.Publisher.String())
		b = appendText(b, p.ETag)
		for _, at := range []int64{kind.Nanos(p.Published), kind.Nanos(p.Expires), int64(p.life), kind.Nanos(p.Lost)} {
			b = binary.BigEndian.AppendUint64(b, uint64(at))
		}
		b = appendText(b, p.Bound.Client)
		b = binary.AppendUvarint(b, p.Bound.Epoch)
		b = appendText(b, p.Doc.ContentType)
		b = appendText(b, p.Doc.Body)
	}
	return b
}

// readRecord reads what encode wrote; nil is an empty record. What it returns
// aliases b. Anything else in b is damage that checksums have let through, or a
// newer version's: going on would make this node's state another than its
// peers'.
func readRecord(b []byte) *record {
	r := &record{}
	if b == nil {
		return r
	}
	in := reader{b: b}
	if v := in.byte(); v != recordVersion {
		panic(fmt.Sprintf("state: a record of version %d", v))
	}
	r.wake = in.int64()
	for range in.uvarint() {
		var p publication
		p.Source, p.Publisher, p.ETag = in.text(), kind.Of(in.text()), in.text()
		p.Published, p.Expires = in.time(), in.time()
		p.life = time.Duration(in.int64())
		p.Lost = in.time()
		p.Bound.Client = in.text()
		p.Bound.Epoch = in.uvarint()
		p.Doc = kind.Document{ContentType: in.text(), Body: in.bytes()}
		r.pubs = append(r.pubs, p)
	}
	in.end()
	return r
}

// A bound is what is stored of who has bound publications.
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
	in := reader{b: stored}
	of := &bound{gone: in.int64()}
	for range in.uvarint() {
		of.topics = append(of.topics, in.text())
	}
	in.end()
	return of
}

func (of *bound) set(tx *broker.ProfileTx, b binder) {
	if len(of.topics) == 0 {
		tx.Set(b.key(), nil)
		return
	}
	value := binary.BigEndian.AppendUint64(nil, uint64(of.gone))
	value = binary.AppendUvarint(value, uint64(len(of.topics)))
	for _, topicName := range of.topics {
		value = appendText(value, topicName)
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

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// A reader takes fields from bytes and panics when they end too early.
type reader struct{ b []byte }

var errShort = errors.New("state: a record that ends too early, or too late")

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		panic(errShort)
	}
	taken := r.b[:n]
	r.b = r.b[n:]
	return taken
}

func (r *reader) byte() byte   { return r.take(1)[0] }
func (r *reader) int64() int64 { return int64(binary.BigEndian.Uint64(r.take(8))) }

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		panic(errShort)
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) time() time.Time {
	if at := r.int64(); at != 0 {
		return time.Unix(0, at).UTC()
	}
	return time.Time{}
}

func (r *reader) bytes() []byte { return r.take(r.uvarint()) }
func (r *reader) text() string  { return string(r.bytes()) }

func (r *reader) end() {
	if len(r.b) > 0 {
		panic(errShort)
	}
}
