package broker

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// What administrators look at and change is written down: who, when, what, about whom, by
// which door and with what result. It is state, in the order of the log, apart for each
// domain that it is about; what is about none is the operator's. A change writes it in the
// entry that makes it; for a look, whoever answers has it ordered before the answer is given,
// so that no look goes unwritten.

// Bounds of the audit. Of a domain's the oldest goes, counted; what is about the domains past
// MostAudited is written with the operator's.
const (
	AuditKept      = 10_000  // of one domain
	AuditBytesKept = 2 << 20 // likewise
	MostAudited    = 1_000
	mostAuditField = 1_100 // bytes; what is longer is cut
)

// An AuditEntry is one look or change.
type AuditEntry struct {
	By     string // a principal, or a word for who needs none
	Door   string // http, local, file, mqtt
	What   string // one word or two: explain, policy put, …
	About  string // an address; *@domain for all of a domain, or what is its own; empty for none
	Result string

	// Hidden says that it is not shown to whom it is about: the operator's policy exempts
	// who looks. The domain's administrators see it.
	Hidden bool
}

// An AuditRecord is one that was written.
type AuditRecord struct {
	AuditEntry
	Number uint64 // counted from 1, for each domain
	At     int64  // log time, unix nanoseconds
}

// auditState is what a domain's audit has: entries first to next, without next.
type auditState struct {
	first, next uint64
	bytes       uint64
	lost        uint64 // that have gone for want of room
}

// Keys of the audit: the prefix, the domain, NUL, the number.
var (
	auditPrefix  = append([]byte{byte(store.Policies)}, "audit/"...)
	auditedState = append([]byte{byte(store.Policies)}, "audited/"...) // and the domain
)

func auditKey(domain string, number uint64) []byte {
	return binary.BigEndian.AppendUint64(append(append(slices.Clone(auditPrefix), domain...), 0), number)
}

func auditStateKey(domain string) []byte { return append(slices.Clone(auditedState), domain...) }

// append appends s as stored: version u8, then first, next, bytes and lost, uvarints.
func (s *auditState) append(b []byte) []byte {
	b = append(b, recordVersion)
	for _, v := range [...]uint64{s.first, s.next, s.bytes, s.lost} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func (s *auditState) decode(b []byte) error {
	if len(b) == 0 || b[0] != recordVersion {
		return event.ErrDamaged
	}
	u := uvarints{left: b[1:]}
	*s = auditState{first: u.take(), next: u.take(), bytes: u.take(), lost: u.take()}
	if u.short || len(u.left) > 0 || s.next < s.first {
		return event.ErrDamaged
	}
	return nil
}

// append appends r as stored, but for its number: version u8, hidden u8, time, and length
// and text of by, door, what, about and result.
func (r *AuditRecord) append(b []byte) []byte {
	hidden := byte(0)
	if r.Hidden {
		hidden = 1
	}
	b = binary.AppendUvarint(append(b, recordVersion, hidden), uint64(r.At))
	for _, text := range [...]string{r.By, r.Door, r.What, r.About, r.Result} {
		b = append(binary.AppendUvarint(b, uint64(len(text))), text...)
	}
	return b
}

func (r *AuditRecord) decode(b []byte) error {
	if len(b) < 2 || b[0] != recordVersion || b[1] > 1 {
		return event.ErrDamaged
	}
	r.Hidden = b[1] == 1
	u := uvarints{left: b[2:]}
	r.At = int64(u.take())
	for _, text := range [...]*string{&r.By, &r.Door, &r.What, &r.About, &r.Result} {
		n := u.take()
		if u.short || n > uint64(len(u.left)) {
			return event.ErrDamaged
		}
		*text, u.left = string(u.left[:n]), u.left[n:]
	}
	if len(u.left) > 0 {
		return event.ErrDamaged
	}
	return nil
}

func (m *Machine) loadAudits() error {
	m.audits = map[string]*auditState{}
	var failed error
	m.store.Scan(auditedState, store.End(auditedState), func(key, value []byte) bool {
		domain, s := string(key[len(auditedState):]), new(auditState)
		if err := s.decode(value); err != nil {
			failed = fmt.Errorf("machine: audit of %q: %w", domain, err)
		}
		m.audits[domain] = s
		return failed == nil
	})
	return failed
}

// auditedDomain is the one with whose audit an entry about somebody is written.
func (m *Machine) auditedDomain(about string) string {
	_, domain, _ := strings.Cut(about, "@")
	if m.audits[domain] == nil && len(m.audits) >= MostAudited {
		return ""
	}
	return domain
}

// applyAudit writes down a look.
func (m *Machine) applyAudit(c *event.Audit) error {
	if m.level < LevelPolicies {
		return &Refusal{Reason: "the audit is not known to all nodes of the cluster"}
	}
	m.audit(AuditEntry{By: c.By, Door: c.Door, What: c.What, About: c.About, Result: c.Result, Hidden: c.Hidden})
	return nil
}

// audit writes an entry down, as of now, and shows it to whom it is about.
func (m *Machine) audit(e AuditEntry) {
	if m.level < LevelPolicies {
		return
	}
	for _, text := range [...]*string{&e.By, &e.Door, &e.What, &e.About, &e.Result} {
		*text = strings.ToValidUTF8(strings.Clone((*text)[:min(len(*text), mostAuditField)]), "")
	}
	domain := m.auditedDomain(e.About)
	s := m.audits[domain]
	if s == nil {
		s = &auditState{first: 1, next: 1}
		m.audits[strings.Clone(domain)] = s
	}
	r := AuditRecord{AuditEntry: e, Number: s.next, At: m.now}
	data := r.append(nil)
	m.tx.Set(auditKey(domain, r.Number), data)
	m.auditing[auditing{domain, r.Number}] = uint64(len(data))
	s.next++
	s.bytes += uint64(len(data))
	for s.next-s.first > AuditKept || s.bytes > AuditBytesKept {
		m.tx.Delete(auditKey(domain, s.first))
		s.bytes -= min(s.bytes, m.sizeOfAudit(domain, s.first))
		s.first++
		s.lost++
	}
	m.tx.Set(auditStateKey(domain), s.append(nil))
	if !e.Hidden && strings.Contains(e.About, "@") && !strings.HasPrefix(e.About, "*") {
		m.changed(ownAudit, e.About)
	}
}

// auditing names an entry that the log entry under way has written, which the store does
// not show before it ends.
type auditing struct {
	domain string
	number uint64
}

func (m *Machine) sizeOfAudit(domain string, number uint64) uint64 {
	if n, now := m.auditing[auditing{domain, number}]; now {
		return n
	}
	data, _ := m.store.Get(auditKey(domain, number), nil)
	return uint64(len(data))
}

// doorOf is the door that somebody who put a policy in force has come by.
func doorOf(by string) string {
	if by == "file" || by == "local" {
		return by
	}
	return "http"
}

// auditPut writes down that a policy was put in force, or why not; about is whose. An
// empty door is that which by is known to use.
func (m *Machine) auditPut(by, door, about string, number uint64, err error) {
	result := fmt.Sprintf("policy %d", number)
	if err != nil {
		result = err.Error()
	}
	m.audit(AuditEntry{By: by, Door: cmp.Or(door, doorOf(by)), What: "policy put", About: about, Result: result})
}

// Audit writes a look down, on all nodes; it returns when that is certain. Whoever cannot
// have it written must not give the answer.
func (b *Broker) Audit(ctx context.Context, e AuditEntry) error {
	return b.do(ctx, &event.Audit{By: e.By, Door: e.Door, What: e.What, About: e.About, Result: e.Result, Hidden: e.Hidden})
}

// An AuditQuery says which of a domain's audit are meant; the operator's if Domain is empty.
type AuditQuery struct {
	Domain string
	About  string // only what concerns this address, and is not hidden from it; empty for all
	Before uint64 // only those before this number; 0 for all
	Most   int    // so many at most
}

// auditPiece is how many entries are read at once.
const auditPiece = 500

// Audited returns entries of the audit, the newest first, as this node has them; more is
// what to ask for those before, 0 if there are none, and lost how many have gone for want of
// room. It may read from the disk.
func (b *Broker) Audited(q AuditQuery) (entries []AuditRecord, more, lost uint64) {
	return readAudit(b.config.Store, q, AuditKept)
}

// readAudit is Audited for one that looks at so many entries at most.
func readAudit(from *store.Store, q AuditQuery, looked int) (entries []AuditRecord, more, lost uint64) {
	data, ok := from.Get(auditStateKey(q.Domain), nil)
	var s auditState
	if !ok || s.decode(data) != nil {
		return nil, 0, 0
	}
	end := s.next
	if q.Before > 0 {
		end = min(end, q.Before)
	}
	for ; end > s.first && looked > 0; looked -= auditPiece {
		start := s.first
		if end-s.first > auditPiece {
			start = end - auditPiece
		}
		var piece []AuditRecord
		prefix := len(auditKey(q.Domain, 0)) - 8
		from.Scan(auditKey(q.Domain, start), auditKey(q.Domain, end), func(key, value []byte) bool {
			r := AuditRecord{Number: store.Uint64At(key, prefix)}
			if r.decode(value) == nil && q.matches(&r) {
				piece = append(piece, r)
			}
			return true
		})
		for _, r := range slices.Backward(piece) {
			if len(entries) == q.Most {
				return entries, entries[len(entries)-1].Number, s.lost
			}
			entries = append(entries, r)
		}
		end = start
	}
	return entries, 0, s.lost
}

func (q *AuditQuery) matches(r *AuditRecord) bool {
	if q.About == "" {
		return true
	}
	_, domain, _ := strings.Cut(q.About, "@")
	return !r.Hidden && (r.About == q.About || r.About == "*@"+domain)
}

// MarshalJSON writes an entry as it is shown.
func (r AuditRecord) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Number uint64 `json:"number"`
		At     string `json:"at"`
		By     string `json:"by"`
		Door   string `json:"door"`
		What   string `json:"what"`
		About  string `json:"about,omitempty"`
		Result string `json:"result"`
		Hidden bool   `json:"hidden,omitempty"`
	}{r.Number, time.Unix(0, r.At).UTC().Format(time.RFC3339Nano), r.By, r.Door, r.What, r.About, r.Result, r.Hidden})
}

// ownAudit is where each principal is shown what concerns them.
const ownAudit = ownTree + "audit"

// audits stands for the profile that a topic of everybody's own is of. Nothing is published
// to it.
type audits struct{}

func (audits) Prefix() string                       { return "audit" }
func (audits) Admit(*Publication) error             { return errShown }
func (audits) Watch(Who, string) error              { return nil }
func (audits) Apply(*ProfileTx, *Publication) error { return errShown }

// auditView shows each principal the newest entries that concern them.
type auditView struct{}

// auditShown is how many are shown, of those among the newest auditLooked of their domain.
const (
	auditShown  = 20
	auditLooked = 1_000
)

func (auditView) Pace() (burst int, interval time.Duration) { return 10, time.Second }

func (auditView) Show(keys Keys, who Who, _ int64) Shown {
	_, domain, _ := strings.Cut(who.Principal, "@")
	q := AuditQuery{Domain: domain, About: who.Principal, Most: auditShown}
	entries, _, _ := readAudit(keys.store, q, auditLooked)
	if entries == nil {
		q.Domain = ""
		entries, _, _ = readAudit(keys.store, q, auditLooked)
	}
	document, err := json.Marshal(map[string]any{"v": 1, "entries": append([]AuditRecord{}, entries...)})
	if err != nil {
		return Shown{Visible: true}
	}
	return Shown{Visible: true, Payload: document, Props: event.AppendContentType(nil, "application/json")}
}
