package acl

import (
	"slices"
	"strconv"
	"strings"

	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/yamltree"
)

// MaxDurability bounds the filters of a policy's `durability`.
const MaxDurability = 1_000

// A durability is what the section of that name says: which topics' events are kept in
// memory only, `memory`, but for those of `log`. What it does not name is in the log.
type durability struct{ memory, log []placed }

// A placed is a filter with its place in the file.
type placed struct {
	filter string
	line   int
}

// ownedLevels are the first levels of topics whose owners decide, reserved whether or
// not they are served: what is kept for owners is never kept in memory only.
var ownedLevels = []string{"im", "location", "presence"}

func (r *reader) readDurability(n *yamltree.Node) {
	if n == nil {
		return
	}
	f, ok := r.Table(n, "durability", "memory", "log")
	if !ok {
		return
	}
	d := &r.policy.durability
	d.memory, d.log = r.readFilters(f["memory"], "memory"), r.readFilters(f["log"], "log")
	switch {
	case len(d.memory)+len(d.log) > MaxDurability:
		r.FailAt(n.Pos, problemf("more than %d filters", MaxDurability))
	case f["memory"] == nil && f["log"] != nil:
		r.FailAt(n.Pos, problemf("`log` without `memory`").Hint("events are in the log unless a filter of memory matches; log names exceptions from that"))
	}
}

func (r *reader) readFilters(n *yamltree.Node, what string) (list []placed) {
	if n == nil {
		return nil
	}
	for _, v := range r.Values(n, what) {
		first, _, _ := strings.Cut(v.Text, "/")
		switch err := topic.ValidFilter(v.Text); {
		case err != nil:
			r.Report(v, err)
		case strings.HasPrefix(v.Text, "$"):
			r.FailAt(v.Pos, problemf("%q: topics that begin with $ are the broker's own", shown(v.Text)).Hint("name topics that clients publish to"))
		case strings.ContainsAny(v.Text, "{}"):
			r.FailAt(v.Pos, problemf("%q: durability is the same for everybody", shown(v.Text)).Hint("placeholders are for rules: write + in place of one"))
		case what == "memory" && slices.Contains(ownedLevels, first):
			r.FailAt(v.Pos, problemf("%q: what is published there is kept for its owner, in the log", shown(v.Text)).Hint("leave it out: durability is about plain topics"))
		default:
			list = append(list, placed{v.Text, v.Pos.Line})
		}
	}
	return list
}

// each calls yield with each filter, the last time with all lists that it is in.
func (d *durability) each(yield func(f placed, lists string)) {
	for _, f := range d.memory {
		yield(f, "memory")
	}
	for _, f := range d.log {
		lists := "log"
		if slices.ContainsFunc(d.memory, func(m placed) bool { return m.filter == f.filter }) {
			lists = "memory, log"
		}
		yield(f, lists)
	}
}

// HasDurability says whether some topics' events may be kept in memory only.
func (p *Policy) HasDurability() bool { return len(p.durability.memory) > 0 }

// Memory says whether events on a topic, a name, are kept in memory only. Topics with
// owners never are, whatever it says of them: that is for who asks to know.
func (p *Policy) Memory(name string) bool { return p.memory(name) > 0 }

// memory returns the line that says so, 0 for none.
func (p *Policy) memory(name string) (line int) {
	matches := func(f placed) bool { return topic.Match(f.filter, name) }
	if i := slices.IndexFunc(p.durability.memory, matches); i >= 0 && !slices.ContainsFunc(p.durability.log, matches) {
		return p.durability.memory[i].line
	}
	return 0
}

// explainDurability adds to what is said of publishing to a name what is promised
// about it.
func (p *Policy) explainDurability(e *Explanation) {
	if line := p.memory(e.Topic); e.Action == Publish && e.Allow && !e.Owner && line > 0 {
		e.Memory = true
		e.lines = append(e.lines, "  keeps    in memory: an acknowledgement does not promise that it survives this node (durability, "+p.file+":"+strconv.Itoa(line)+")")
	}
}
