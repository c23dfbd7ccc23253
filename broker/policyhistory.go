package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// The policies that were in force are state: each has a number, counted from 1, and is
// kept with when it was put in force and by whom, so that a change can be compared, and
// taken back, on any node. The history begins with the level that brings it, with the
// policy of that moment.

// Bounds of the history. The oldest goes; the one in force always stays.
const (
	PoliciesKept     = 100
	PolicyBytesKept  = 16 << 20
	mostPolicyAuthor = 1100 // bytes of an author's name
)

// A PolicyRecord is one policy of the history.
type PolicyRecord struct {
	Number uint64
	At     int64  // log time at which it was put in force, unix nanoseconds
	By     string // principal, or a word for who needs none; may be empty
	Size   int    // bytes
}

// A PolicyChange puts a policy in force.
type PolicyChange struct {
	Data []byte
	By   string

	// Base is the number of the policy that it is made from: if another one is in
	// force by then, nothing is changed. 0: whichever is.
	Base uint64
}

// policyHistory is what the Machine keeps of policies, oldest first. Their data are
// in the store.
type policyHistory []PolicyRecord

var (
	historyKey = append([]byte{byte(store.Policies)}, "operator history"...)
	pastPolicy = append([]byte{byte(store.Policies)}, "operator past/"...) // and its number
)

func pastPolicyKey(number uint64) []byte {
	return binary.BigEndian.AppendUint64(bytes.Clone(pastPolicy), number)
}

// number is that of the policy in force, 0 if none has one.
func (h policyHistory) number() uint64 {
	if len(h) == 0 {
		return 0
	}
	return h[len(h)-1].Number
}

// append appends h as stored: what decodeHistory reads.
//
//	version u8 | how many, uvarint | of each: number, time, size, length of the author, uvarints; author
func (h policyHistory) append(b []byte) []byte {
	b = binary.AppendUvarint(append(b, recordVersion), uint64(len(h)))
	for _, r := range h {
		for _, v := range [...]uint64{r.Number, uint64(r.At), uint64(r.Size), uint64(len(r.By))} {
			b = binary.AppendUvarint(b, v)
		}
		b = append(b, r.By...)
	}
	return b
}

func decodeHistory(b []byte) (h policyHistory, err error) {
	if len(b) == 0 || b[0] != recordVersion {
		return nil, event.ErrDamaged
	}
	u := uvarints{left: b[1:]}
	for n := u.take(); n > 0 && !u.short; n-- {
		r := PolicyRecord{Number: u.take(), At: int64(u.take()), Size: int(u.take())}
		n := u.take()
		if u.short || n > uint64(len(u.left)) {
			return nil, event.ErrDamaged
		}
		r.By, u.left = string(u.left[:n]), u.left[n:]
		h = append(h, r)
	}
	if u.short || len(u.left) > 0 {
		return nil, event.ErrDamaged
	}
	return h, nil
}

func (m *Machine) loadHistory() (err error) {
	m.history = nil
	if data, ok := m.store.Get(historyKey, nil); ok {
		if m.history, err = decodeHistory(data); err != nil {
			return fmt.Errorf("machine: history of policies: %w", err)
		}
	}
	return nil
}

// beginHistory gives the policy in force its number, when the level rises to the one
// that brings the history.
func (m *Machine) beginHistory() {
	if m.policy == nil {
		return
	}
	m.keepPolicy(m.policyData, "", m.inForce)
	m.out.steps = append(m.out.steps, step{kind: stepNumbered, number: m.history.number()})
}

// keepPolicy adds a policy to the history, and has the oldest go.
func (m *Machine) keepPolicy(data []byte, by string, at int64) {
	if m.level < LevelPolicies {
		return
	}
	r := PolicyRecord{Number: m.history.number() + 1, At: at, By: strings.Clone(by), Size: len(data)}
	m.tx.Set(pastPolicyKey(r.Number), data)
	for _, gone := range m.history.keep(r, PoliciesKept, PolicyBytesKept) {
		m.tx.Delete(pastPolicyKey(gone))
	}
	m.tx.Set(historyKey, m.history.append(nil))
}

// keep adds a record, and takes out the oldest ones that are too many then, or together
// too large: their numbers are returned. The newest stays, however large it is.
func (h *policyHistory) keep(r PolicyRecord, most, mostBytes int) (gone []uint64) {
	*h = append(*h, r)
	total := 0
	for _, r := range *h {
		total += r.Size
	}
	n := 0
	for rest := len(*h); rest > most || total > mostBytes && rest > 1; rest-- {
		gone = append(gone, (*h)[n].Number)
		total -= (*h)[n].Size
		n++
	}
	*h = slices.Delete(*h, 0, n)
	return gone
}

// applyPutPolicy puts a policy in force and answers its number. The one that is in
// force stays as it is, with its number.
func (m *Machine) applyPutPolicy(c *event.PutPolicy) (number uint64, err error) {
	in := m.history.number()
	switch {
	case c.Base != 0 && c.Base != in:
		return in, &Refusal{Cause: ErrCondition, Reason: fmt.Sprintf("policy %d is in force, not %d", in, c.Base)}
	case len(c.By) > mostPolicyAuthor:
		return in, &Refusal{Reason: "the author's name is too long"}
	case m.policy != nil && bytes.Equal(c.Data, m.policyData):
		return in, nil
	}
	if err := m.putPolicy(c.Data, c.By); err != nil {
		return in, err
	}
	return m.history.number(), nil
}

// putPolicy puts a policy in force that is another one.
func (m *Machine) putPolicy(data []byte, by string) error {
	policy, err := m.compile(data, m.domain())
	if err != nil {
		return &Refusal{Reason: err.Error()}
	}
	if m.policy == nil || !bytes.Equal(data, m.policyData) {
		m.keepPolicy(data, by, m.now)
	}
	m.tx.Set(policyKey, data)
	m.policyData, m.operators = bytes.Clone(data), policy
	m.dropParts()
	m.adopt(m.combined(policy))
	return nil
}

// PutPolicy puts a policy in force, on all nodes: it returns when this one has applied
// it, with its number; 0 while not all nodes know the level that brings numbers. One
// that does not compile is an ErrRefused, one whose Base is not in force an
// ErrCondition: they change nothing. ErrUnknown means that it may yet be put in force.
func (b *Broker) PutPolicy(ctx context.Context, c PolicyChange) (number uint64, err error) {
	if b.Level() < LevelPolicies {
		if c.Base != 0 {
			return 0, &Refusal{Cause: ErrCondition, Reason: "policies have no numbers until all nodes of the cluster know them"}
		}
		return 0, b.SetPolicy(ctx, c.Data)
	}
	w := newWait()
	if err := b.propose(&event.PutPolicy{Data: c.Data, By: c.By, Base: c.Base}, call{c: w}, false); err != nil {
		return 0, err
	}
	select {
	case <-w.done:
		number, _ = w.value.(uint64)
		return number, w.err
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	}
}

// Policies returns the history as this node has it, oldest first: the last one is in
// force. It is empty while the level has none.
func (b *Broker) Policies() []PolicyRecord {
	h, _ := decodeHistory(storedValue(b.config.Store, historyKey)) // empty if there is none
	return h
}

// PolicyByNumber returns the bytes of a policy of the history, nil if it is not kept.
func (b *Broker) PolicyByNumber(number uint64) []byte {
	return storedValue(b.config.Store, pastPolicyKey(number))
}

// PolicyNumber is that of the policy in force here, 0 if it has none.
func (b *Broker) PolicyNumber() uint64 {
	if p := b.policy.Load(); p != nil {
		return p.number
	}
	return 0
}
