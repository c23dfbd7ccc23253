package acl

import (
	"fmt"
	"time"

	"github.com/bellwire/bellwire/yamltree"
)

// Delays bound the events that wait for their time ($delayed/SECONDS/TOPIC), as the section
// `delayed` says. 0 of any field means the broker's default.
type Delays struct {
	Longest               uint64 // delay, seconds
	Events, Bytes         uint64 // that wait, in all
	UserEvents, UserBytes uint64 // of one user; of a client that has none, of the client

	line int // 0: there is no such section
}

// MaxDelay is the most that can be said of the longest delay, in seconds.
const MaxDelay = 4294967

func (r *reader) readDelays(n *yamltree.Node) {
	if n == nil {
		return
	}
	f, ok := r.Table(n, "delayed", "longest", "events", "bytes", "user_events", "user_bytes")
	if !ok {
		return
	}
	d := &r.policy.delays
	d.line = n.Pos.Line
	const hint = "leave it out for the default"
	r.readNumber(f["events"], "events", mostOfQuota, hint, &d.Events)
	r.readNumber(f["bytes"], "bytes", mostOfQuota, hint, &d.Bytes)
	r.readNumber(f["user_events"], "user_events", mostOfQuota, hint, &d.UserEvents)
	r.readNumber(f["user_bytes"], "user_bytes", mostOfQuota, hint, &d.UserBytes)
	if f["longest"] == nil {
		return
	}
	text, ok := r.Text(f["longest"], "longest")
	if !ok {
		return
	}
	longest, err := time.ParseDuration(text)
	if err != nil || longest < time.Second || longest > MaxDelay*time.Second || longest%time.Second != 0 {
		r.FailAt(f["longest"].Pos, problemf("longest: %q, want whole seconds, 1s to %s", shown(text), MaxDelay*time.Second).Hint(`write it as in "24h" or "90s"`))
		return
	}
	d.Longest = uint64(longest / time.Second)
}

// HasDelays says whether the policy bounds what waits.
func (p *Policy) HasDelays() bool { return p.delays.line > 0 }

// Delays is how it does.
func (p *Policy) Delays() Delays { return p.delays }

func (d *Delays) describe() string {
	return fmt.Sprintf("longest %ds; events %d; bytes %d; user_events %d; user_bytes %d", d.Longest, d.Events, d.Bytes, d.UserEvents, d.UserBytes)
}
