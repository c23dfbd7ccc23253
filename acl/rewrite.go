package acl

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/yamltree"
)

// A rewrite is an entry of `rewrite`: what is published to a topic, or subscribed to, that
// its source matches is taken as if its client had named another.
//
// As in EMQX the entries are asked in their order, and the last whose source matches
// decides alone: if its expression does not match, the topic stays as it is.
type rewrite struct {
	line   int
	on     [2]bool // by Action
	source string
	re     *regexp.Regexp
	dest   []destPart
	text   string // dest as it is written
}

// A destPart is a piece of a destination: text, what a group of the expression has matched
// (from 1), or what is known of the client.
type destPart struct {
	text  string
	group int
	of    destHole
}

type destHole uint8

const (
	noDest destHole = iota
	destClient
	destUser
	destHost // of subscriptions only
)

var destHoles = [...]string{destClient: "${clientid}", destUser: "${username}", destHost: "${host}"}

// Bounds on what is rewritten.
const (
	MaxRewrites   = 1_000
	maxRewriteRE  = 1_024 // bytes of an expression
	maxRewriteTo  = 1_024 // of a destination
	delayedPrefix = "$delayed/"
)

// readRewrite reads an entry of `rewrite`.
func (r *reader) readRewrite(n *yamltree.Node) {
	f, ok := r.Table(n, "a rewrite", "action", "source_topic", "re", "dest_topic")
	if !ok {
		return
	}
	made := &rewrite{line: n.Pos.Line}
	for _, key := range []string{"action", "source_topic", "re", "dest_topic"} {
		if f[key] == nil {
			r.FailAt(n.Pos, problemf("a rewrite without %s", key).
				Hint(`as in {action: publish, source_topic: "x/#", re: "^x/(.+)$", dest_topic: "y/$1"}`))
			continue
		}
		text, ok := r.Text(f[key], key)
		if !ok {
			continue
		}
		if err := made.set(key, text); err != nil {
			r.Report(f[key], err)
		}
	}
	if made.re != nil && made.dest != nil {
		if err := made.check(); err != nil {
			r.Report(f["dest_topic"], err)
		}
	}
	r.policy.rewrites = append(r.policy.rewrites, made)
}

func (w *rewrite) set(key, text string) (err error) {
	switch key {
	case "action":
		switch text {
		case "publish":
			w.on[Publish] = true
		case "subscribe":
			w.on[Subscribe] = true
		case "all":
			w.on = [2]bool{true, true}
		default:
			return problemf("unknown action %q", shown(text)).
				Near(text, []string{"publish", "subscribe", "all"}, "actions are publish, subscribe and all")
		}
	case "source_topic":
		w.source = text
		return checkSource(text)
	case "re":
		if len(text) > maxRewriteRE {
			return problemf("an expression of %d bytes, at most %d are possible", len(text), maxRewriteRE)
		}
		if w.re, err = regexp.Compile(text); err != nil {
			return problemf("%q is no regular expression: %v", shown(text), err).Hint("the syntax is RE2's: there are no look-arounds and no back references")
		}
	case "dest_topic":
		if len(text) > maxRewriteTo {
			return problemf("a destination of %d bytes, at most %d are possible", len(text), maxRewriteTo)
		}
		w.text = text
		w.dest, err = parseDest(text, destHoles[:destHost], true)
	}
	return err
}

// checkSource says whether what a filter matches may be rewritten.
func checkSource(filter string) error {
	first, _, _ := strings.Cut(filter, "/")
	switch err := topic.ValidFilter(filter); {
	case err != nil:
		return problemf("%q is no topic filter: %v", shown(filter), err)
	case strings.HasPrefix(filter, "$share/"):
		return problemf("%q is a shared subscription", shown(filter)).Hint("write the filter that is shared: it is rewritten, and $share/GROUP/ stays")
	case strings.HasPrefix(filter, "$"):
		return problemf("%q: topics that begin with $ are not rewritten", shown(filter))
	case slices.Contains(ownedLevels, first):
		return problemf("%q: topics that have owners are not rewritten", shown(filter))
	}
	return nil
}

// parseDest takes a destination apart at the holes that it may have, and $1 to $99 where there
// are groups of an expression.
func parseDest(s string, holes []string, groups bool) (parts []destPart, err error) {
	hint := "placeholders are " + strings.Join(holes[1:], ", ")
	if groups {
		hint += ", and $1 and so on of the expression's groups"
	}
	text := s
	add := func(n int, p destPart) {
		parts = append(parts, p)
		text = text[n:]
	}
	for text != "" {
		at := strings.IndexByte(text, '$')
		switch {
		case at < 0:
			add(len(text), destPart{text: text})
		case at > 0:
			add(at, destPart{text: text[:at]})
		case groups && len(parts) == 0 && strings.HasPrefix(text, delayedPrefix):
			add(len(delayedPrefix), destPart{text: delayedPrefix})
		case strings.HasPrefix(text, "${"):
			name, _, closed := strings.Cut(text, "}")
			of := destHole(max(0, slices.Index(holes, name+"}")))
			if !closed || of == noDest {
				return nil, problemf("%q is no placeholder", shown(name)).Near(name+"}", holes[1:], hint)
			}
			add(len(name)+1, destPart{of: of})
		default:
			n := 1
			for n < len(text) && n < 3 && '0' <= text[n] && text[n] <= '9' {
				n++
			}
			group, _ := strconv.Atoi(text[1:n])
			if group == 0 || !groups {
				return nil, problemf("a $ that is no placeholder in %q", shown(s)).Hint("%s", hint)
			}
			add(n, destPart{group: group})
		}
	}
	return parts, nil
}

// check says whether the destination goes with the rest.
func (w *rewrite) check() error {
	var plain strings.Builder // the destination with an innocent word in each hole
	for _, p := range w.dest {
		if p.group > w.re.NumSubexp() {
			return problemf("$%d in a destination, and the expression has %d groups", p.group, w.re.NumSubexp()).Hint("a group is what stands in ( )")
		}
		if p.text == "" {
			plain.WriteByte('x')
		}
		plain.WriteString(p.text)
	}
	to := plain.String()
	if w.on[Publish] {
		if err := topic.ValidName(to); err != nil {
			return problemf("%q is no topic to publish to: %v", shown(w.text), err)
		}
	} else if err := topic.ValidFilter(to); err != nil {
		return problemf("%q is no topic filter: %v", shown(w.text), err)
	}
	if p := mayRewriteTo(to, !w.on[Subscribe]); p != nil {
		return p
	}
	return nil
}

// mayRewriteTo says why a topic is nothing that another is rewritten to; nil if it is.
func mayRewriteTo(to string, publish bool) *problem {
	first, _, _ := strings.Cut(to, "/")
	switch {
	case slices.Contains(ownedLevels, first):
		return problemf("topics that have owners are not what others are rewritten to: %s", shown(to))
	case strings.HasPrefix(to, delayedPrefix) && publish:
	case strings.HasPrefix(to, "$"):
		return problemf("topics that begin with $ are not what others are rewritten to: %s", shown(to)).
			Hint("but for publications to $delayed/SECONDS/TOPIC")
	}
	return nil
}

// A rewriteIndex finds by a topic which entry decides. Looking up allocates nothing.
type rewriteIndex struct {
	all  []*rewrite
	root [2]*rewriteNode // by Action; nil for none
}

// A rewriteNode is a level of sources. Numbers are those of entries, from 1; 0 for none.
type rewriteNode struct {
	next map[string]*rewriteNode // + is a level like others
	here int                     // of sources that end here
	deep int                     // of those that go on with #
}

func newRewriteIndex(all []*rewrite) rewriteIndex {
	x := rewriteIndex{all: all}
	for i, w := range all {
		for what := range w.on {
			if !w.on[what] {
				continue
			}
			if x.root[what] == nil {
				x.root[what] = &rewriteNode{}
			}
			x.root[what].add(w.source, i+1)
		}
	}
	return x
}

func (n *rewriteNode) add(source string, number int) {
	for word := range strings.SplitSeq(source, "/") {
		if word == "#" {
			n.deep = number // a later one takes the place of one before
			return
		}
		if n.next == nil {
			n.next = map[string]*rewriteNode{}
		}
		if n.next[word] == nil {
			n.next[word] = &rewriteNode{}
		}
		n = n.next[word]
	}
	n.here = number
}

// last returns the greatest number of the entries that match what is left of a topic.
func (n *rewriteNode) last(left string, more bool) int {
	if !more {
		return max(n.here, n.deep)
	}
	found := n.deep
	if n.next == nil {
		return found
	}
	word, rest, more := strings.Cut(left, "/")
	if to := n.next[word]; to != nil {
		found = max(found, to.last(rest, more))
	}
	if to := n.next["+"]; to != nil && word != "+" {
		found = max(found, to.last(rest, more))
	}
	return found
}

// HasRewrites says whether topics are rewritten at all.
func (p *Policy) HasRewrites() bool { return len(p.rewrites) > 0 }

// Rewrite returns the topic that is meant by who names one: name itself, as a rule. Of a
// filter that is shared it is what is shared. line is that of the entry which decided, 0
// for none. The error, a reason for people, means that what it makes is no topic: then
// nothing is published, or subscribed to. name is valid. Where no entry has to do with name nothing is
// allocated.
func (p *Policy) Rewrite(who Who, what Action, name string) (to string, line int, err error) {
	root := p.rewriting.root[what]
	if root == nil || name == "" {
		return name, 0, nil
	}
	if name[0] == '$' {
		return p.rewriteShared(who, what, name)
	}
	number := root.last(name, true)
	if number == 0 {
		return name, 0, nil
	}
	w := p.rewriting.all[number-1]
	if first, _, _ := strings.Cut(name, "/"); slices.Contains(ownedLevels, first) {
		return name, 0, nil // a source with a wildcard in its place
	}
	groups := w.re.FindStringSubmatchIndex(name)
	if groups == nil {
		return name, 0, nil
	}
	to, err = w.expand(who, what, name, groups)
	return to, w.line, err
}

// rewriteShared rewrites what is shared. Nothing else that begins with $ is rewritten.
func (p *Policy) rewriteShared(who Who, what Action, name string) (to string, line int, err error) {
	if what != Subscribe {
		return name, 0, nil
	}
	_, rest, shared, err := topic.SplitShare(name)
	if !shared || err != nil {
		return name, 0, nil
	}
	to, line, err = p.Rewrite(who, what, rest)
	if line == 0 || err != nil {
		return name, line, err
	}
	return name[:len(name)-len(rest)] + to, line, nil
}

// expand makes the destination of what the expression has found in name.
func (w *rewrite) expand(who Who, what Action, name string, groups []int) (to string, err error) {
	var b []byte
	for _, p := range w.dest {
		switch {
		case p.group > 0:
			if from := groups[2*p.group]; from >= 0 {
				b = append(b, name[from:groups[2*p.group+1]]...)
			}
		case p.of == destClient && who.Client != "":
			b = appendEscaped(b, who.Client)
		case p.of == destUser && who.Principal != "":
			b = appendEscaped(b, who.Principal)
		case p.of != noDest:
			return "", fmt.Errorf("the topic is rewritten with %s, which the client does not have", destHoles[p.of])
		default:
			b = append(b, p.text...)
		}
	}
	to = string(b)
	if what == Publish {
		err = topic.ValidName(to)
	} else {
		err = topic.ValidFilter(to)
	}
	if err != nil {
		return "", fmt.Errorf("the topic is rewritten to one that is not valid: %w", err)
	}
	if p := mayRewriteTo(to, what == Publish); p != nil {
		return "", fmt.Errorf("the topic is rewritten: %w", p)
	}
	return to, nil
}

func (w *rewrite) describe() string {
	action := "all"
	for what, is := range w.on {
		if !is {
			action = (1 - Action(what)).String()
		}
	}
	return fmt.Sprintf("%s %s re %s to %s", action, w.source, w.re, w.text)
}

// ExplainRequest is Explain of what a client asks for, which may be rewritten first: Rewritten
// is then what it asked for.
func (p *Policy) ExplainRequest(who Who, what Action, name string, at time.Time) (Explanation, error) {
	if _, err := checkTopic(what, name); err != nil {
		return Explanation{}, err
	}
	to, line, err := p.Rewrite(who, what, name)
	if line == 0 {
		return p.Explain(who, what, name, at)
	}
	place := fmt.Sprintf("%s:%d", p.file, line)
	if err != nil {
		refused := Explanation{Who: who, Action: what, Topic: name, At: at, lines: []string{"  because  " + err.Error() + "   " + place}}
		refused.Reason = err.Error()
		return refused, nil
	}
	made, err := p.Explain(who, what, to, at)
	made.Rewritten = name
	made.lines = append([]string{"  was      " + name + ", which is rewritten   " + place}, made.lines...)
	return made, err
}
