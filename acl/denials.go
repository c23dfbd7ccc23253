package acl

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// A Denial is a question that was answered with no, kept so that it can be asked
// again: the same question about the same instant of the same policy has the same
// answer.
type Denial struct {
	ID      string
	Who     Who
	Action  Action
	Topic   string
	Version uint64 // of the policy, as whoever noted it counts

	// First and Last are the instants of the first and the newest refusal for the
	// same reason, Times how many there were. Explanations are about Last.
	First, Last time.Time
	Times       uint64

	Rule   string
	Line   int
	Reason string // what the client was told, without the id

	// Policy is the one that refused; nil if MaxDeniedPolicies newer ones have
	// refused something since.
	Policy *Policy
}

// Bounds of Denials. The loser is always the oldest.
const (
	MaxDenials        = 4096
	maxDeniedBytes    = 4 << 20 // of topics and names
	MaxDeniedPolicies = 4
)

// Denials remember the newest refusals of a node under short ids. It is safe for
// concurrent use and has no clock. Refusals of one question by one policy for one
// reason are one Denial: whoever asks in vain a thousand times a second pushes out
// nothing and has one id.
type Denials struct {
	tag    string        // what the node's ids begin with
	random func() uint32 // of which 30 bits make an id

	mu       sync.Mutex // guards the following
	ring     []*Denial  // in the order of their beginning from next on, which is the oldest
	next     int
	bytes    int
	byID     map[string]*Denial
	byCause  map[denialCause]*Denial
	policies []*Policy // that denials hold, oldest first
	lost     uint64
}

// denialCause is what refusals have in common that are one Denial.
type denialCause struct {
	who    Who
	what   Action
	topic  string
	policy *Policy
	rule   string
	reason string
}

// NewDenials returns an empty memory for the node of that id. random must be
// unpredictable: who has one id must not know the next.
func NewDenials(node string, random func() uint32) *Denials {
	return &Denials{
		tag: DenialTag(node), random: random, ring: make([]*Denial, MaxDenials),
		byID: map[string]*Denial{}, byCause: map[denialCause]*Denial{},
	}
}

// Ids are of eight characters in Crockford's alphabet, which has no I, L, O and U:
// two for the node, that the question finds it, and 30 bits of chance.
const (
	denialAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	tagLength      = 2
	idLength       = tagLength + 6
)

// DenialTag is what the ids of a node begin with. Two nodes may have the same, which
// costs a question more.
func DenialTag(node string) string {
	h := uint32(2166136261) // FNV-1a
	for i := range len(node) {
		h = (h ^ uint32(node[i])) * 16777619
	}
	return spell(h^h>>15, tagLength)
}

func spell(bits uint32, n int) string {
	var b [idLength]byte
	for i := range n {
		b[i] = denialAlphabet[bits>>(5*i)&31]
	}
	return string(b[:n])
}

// ParseDenialID returns an id as it is written here: capitals make no difference, nor
// does what looks alike. ok is false if it cannot be one.
func ParseDenialID(s string) (id string, ok bool) {
	if len(s) != idLength {
		return "", false
	}
	id = strings.NewReplacer("I", "1", "L", "1", "O", "0").Replace(strings.ToUpper(s))
	for i := range len(id) {
		if strings.IndexByte(denialAlphabet, id[i]) < 0 {
			return "", false
		}
	}
	return id, true
}

// Note remembers that p refused d's question at d.Last, and returns its id. Of d it
// takes who, what, topic, version, instant, rule, line and reason. fresh says that it
// has not been remembered yet.
func (n *Denials) Note(p *Policy, d Denial) (id string, fresh bool) {
	cause := denialCause{d.Who, d.Action, d.Topic, p, d.Rule, d.Reason}
	n.mu.Lock()
	defer n.mu.Unlock()
	if known := n.byCause[cause]; known != nil {
		known.Times++
		if d.Last.After(known.Last) {
			known.Last = d.Last
		}
		return known.ID, false
	}
	d.Topic = strings.Clone(d.Topic) // it may be of a buffer
	d.First, d.Times, d.Policy = d.Last, 1, p
	for d.ID == "" || n.byID[d.ID] != nil {
		d.ID = n.tag + spell(n.random(), idLength-tagLength)
	}
	size := d.size()
	for n.ring[n.next] != nil || n.bytes+size > maxDeniedBytes && len(n.byID) > 0 {
		n.dropOldest()
	}
	n.hold(p)
	n.ring[n.next] = &d
	n.next = (n.next + 1) % len(n.ring)
	n.bytes += size
	n.byID[d.ID] = &d
	n.byCause[d.cause()] = &d
	return d.ID, true
}

func (d *Denial) size() int {
	return len(d.Topic) + len(d.Who.Principal) + len(d.Who.Client) + len(d.Reason)
}

func (d *Denial) cause() denialCause {
	return denialCause{d.Who, d.Action, d.Topic, d.Policy, d.Rule, d.Reason}
}

// dropOldest makes room. There must be something.
func (n *Denials) dropOldest() {
	at := n.next
	for n.ring[at] == nil {
		at = (at + 1) % len(n.ring)
	}
	d := n.ring[at]
	n.ring[at] = nil
	n.bytes -= d.size()
	delete(n.byID, d.ID)
	delete(n.byCause, d.cause())
	n.lost++
}

// hold notes that denials hold p, and has them let go of the oldest policy if they
// hold too many: a policy may be large.
func (n *Denials) hold(p *Policy) {
	for _, held := range n.policies {
		if held == p {
			return
		}
	}
	n.policies = append(n.policies, p)
	if len(n.policies) <= MaxDeniedPolicies {
		return
	}
	oldest := n.policies[0]
	n.policies = append(n.policies[:0], n.policies[1:]...)
	for _, d := range n.byID {
		if d.Policy == oldest {
			delete(n.byCause, d.cause())
			d.Policy = nil
		}
	}
}

// Find returns the denial with that id.
func (n *Denials) Find(id string) (d Denial, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if found := n.byID[id]; found != nil {
		return *found, true
	}
	return Denial{}, false
}

// Counts returns how many denials are remembered, and how many were pushed out.
func (n *Denials) Counts() (known int, lost uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.byID), n.lost
}

// Text is the denial for people, from the policy that refused, or p if there is none
// any more: that of the same version, made again, or nil.
func (d *Denial) Text(p *Policy) string {
	if d.Policy != nil {
		p = d.Policy
	}
	head := fmt.Sprintf("%s  policy %d, %s", d.ID, d.Version, d.Last.UTC().Format(time.RFC3339))
	if d.Times > 1 {
		head += fmt.Sprintf("; %d times since %s", d.Times, d.First.UTC().Format(time.RFC3339))
	}
	if p != nil {
		if e, err := p.Explain(d.Who, d.Action, d.Topic, d.Last); err == nil {
			return head + "\n" + e.Text()
		}
	}
	text := fmt.Sprintf("%s\n%-7s %s %s   as %s\n", head, "DENY", d.Action, d.Topic, d.Who)
	if d.Rule != "" {
		text += fmt.Sprintf("  by       %-20s  line %d\n", d.Rule, d.Line)
	}
	return text + "  because  " + d.Reason + "\n           that policy is not kept any more\n"
}
