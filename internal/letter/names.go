package letter

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A rewriting is an entry of `rewrite`.
type rewriting struct {
	Action string `json:"action"`
	Source string `json:"source_topic"`
	RE     string `json:"re"`
	Dest   string `json:"dest_topic"`
}

// A giving is an entry of `subscriptions`.
type giving struct {
	ID    string   `json:"id"`
	Who   []string `json:"who"`
	Topic []string `json:"topic"`
	QoS   byte     `json:"qos"`
	NL    bool     `json:"nl"`
	RAP   bool     `json:"rap"`
	RH    byte     `json:"rh"`
}

// A Given is a subscription that a client is given when its session begins, if the rules
// permit it.
type Given struct {
	Filter         string
	QoS            byte
	NoLocal, AsWas bool // RETAIN stays as it was published
	Handling       byte // Retain Handling
}

// percent writes a value as it stands in one level of a topic.
func percent(value string) string {
	var b strings.Builder
	for i := range len(value) {
		if c := value[i]; strings.IndexByte("%/+#\x7f", c) >= 0 || c < ' ' || c == '$' && i == 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// hole is what stands for something in a destination.
var hole = regexp.MustCompile(`\$\{clientid\}|\$\{username\}|\$\{host\}|\$[1-9][0-9]?`)

// Meant returns the topic, or filter, that somebody means who names one, to "publish" or to
// "subscribe": of the entries whose source matches the last decides alone. There is none, and
// the request is refused, where it is not ok.
func (p *Operator) Meant(who Somebody, action, name string) (to string, ok bool) {
	if share := strings.SplitN(name, "/", 3); action == "subscribe" && share[0] == "$share" && len(share) == 3 {
		to, ok = p.Meant(who, action, share[2])
		return share[0] + "/" + share[1] + "/" + to, ok
	}
	if beginsOwned(name) || strings.HasPrefix(name, "$") {
		return name, true
	}
	for _, w := range slices.Backward(p.rewritings) {
		if w.Action != action && w.Action != "all" || !Matches(w.Source, name) {
			continue
		}
		groups := regexp.MustCompile(w.RE).FindStringSubmatch(name)
		if groups == nil {
			return name, true
		}
		return expand(w.Dest, who, action, groups)
	}
	return name, true
}

func expand(dest string, who Somebody, action string, groups []string) (to string, ok bool) {
	ok = true
	to = hole.ReplaceAllStringFunc(dest, func(at string) string {
		value := map[string]string{"${clientid}": who.Client, "${username}": who.Principal}[at]
		if n, err := strconv.Atoi(at[1:]); err == nil {
			return groups[n]
		}
		ok = ok && value != ""
		return percent(value)
	})
	delayed := action == "publish" && strings.HasPrefix(to, "$delayed/")
	wild := strings.ContainsAny(to, "+#")
	return to, ok && to != "" && !beginsOwned(to) && (delayed || to[0] != '$') && !(wild && action == "publish")
}

func beginsOwned(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	return slices.Contains([]string{"presence", "location", "im"}, first)
}

// Given returns what somebody who comes from a host is given, of one filter what comes first.
func (p *Operator) Given(who Somebody, host string) (all []Given) {
	for _, g := range p.givings {
		if !p.includes(g.Who, who) {
			continue
		}
		for _, filter := range g.Topic {
			known := true
			filter = hole.ReplaceAllStringFunc(filter, func(at string) string {
				value := map[string]string{"${clientid}": who.Client, "${username}": who.Principal, "${host}": host}[at]
				known = known && value != ""
				return percent(value)
			})
			first, _, _ := strings.Cut(filter, "/")
			if !known || beginsOwned(filter) || slices.Contains([]string{"+", "#"}, first) || slices.ContainsFunc(all, func(one Given) bool { return one.Filter == filter }) {
				continue
			}
			all = append(all, Given{filter, g.QoS, g.NL, g.RAP, g.RH})
		}
	}
	return all
}

// Grants says whether a rule allows somebody at that instant to subscribe to the whole of a
// filter: then SUBSCRIBE is granted. It may be without.
func (p *Operator) Grants(who Somebody, filter string, at time.Time) bool {
	return slices.ContainsFunc(p.rules, func(r operatorRule) bool {
		return slices.Contains(r.allow, "subscribe") && p.includes(r.who, who) && r.open(at) &&
			slices.ContainsFunc(r.filters(who), func(own string) bool { return covers(own, filter) })
	})
}

// covers says whether all topics of a filter are of another.
func covers(wide, filter string) bool {
	w, f := strings.Split(wide, "/"), strings.Split(filter, "/")
	for i, level := range w {
		if level == "#" {
			return true
		}
		if i >= len(f) || f[i] == "#" || level != "+" && level != f[i] {
			return false
		}
	}
	return len(w) == len(f)
}

// names makes up how topics are rewritten, and what clients are given.
func (r *Random) names() (rewritings, givings []any) {
	for range r.IntN(5) {
		w := pick(r, randomRewritings)
		if w.Action == "all" {
			w.Action = pick(r, []string{"all", "all", "publish", "subscribe"})
		}
		rewritings = append(rewritings, w)
	}
	for i := range r.IntN(4) {
		g := giving{ID: fmt.Sprint("g", i), Who: r.whom(), QoS: byte(r.IntN(3)), NL: r.Chance(3), RAP: r.Chance(2), RH: byte(r.IntN(3))}
		for range 1 + r.IntN(2) {
			g.Topic = append(g.Topic, pick(r, randomGivings))
		}
		givings = append(givings, g)
	}
	return rewritings, givings
}

// They are of names as those of RandomNames, and of topics as rules are about.
var (
	randomRewritings = []rewriting{
		{"all", "old/#", "^old/(.*)$", "w/$1"},
		{"all", "old/+", "^old/([0-9])$", "m/$1"},
		{"all", "trick/#", "^trick/(.*)$", "$1"},
		{"all", "self/#", "^self/(.*)$", "c/${clientid}/$1"},
		{"all", "user/+", "^user/(.*)$", "w/${username}/$1"},
		{"all", "+/+/x", "^w/(a|b)/(x)$", "w/$1/y"},
		{"all", "w/#", "^w/a/(.+)$", "w/b/$1"},
		{"subscribe", "#", "^(w|m)/(#)$", "$1/+"},
		{"all", "#", "^other$", "w/a/x"},
		{"publish", "later/#", "^later/(.*)$", "$delayed/60/w/$1"},
		{"subscribe", "m/+", `^m/[+]$`, "w/+/x"},
	}
	randomGivings = []string{"w/a/x", "w/a/#", "w/+/y", "m/#", "m/1", "c/${clientid}/#", "w/${username}/x", "d/example.net/t", "from/${host}", "other"}
)

// RandomNames are such as clients use whose topics are rewritten.
var RandomNames = []string{"old/a/x", "old/b/y", "old/1", "old/2", "trick/w/a/x", "trick/m/1", "trick/presence/example.com/ana", "trick/$SYS/x", "self/t", "user/x", "later/a/x", "w/a/x", "other"}

// RandomFilters are those to which they subscribe.
var RandomFilters = []string{"old/#", "old/+", "old/a/+", "old/1", "trick/#", "trick/w/#", "trick/$SYS/#", "self/#", "user/x", "w/+/x", "w/#", "m/+", "w/a/#"}

// Whereto are the topics that somebody's names may stand for, besides those that rules are about.
func Whereto(who Somebody) []string {
	return append([]string{"c/" + percent(who.Client) + "/t", "w/" + percent(who.Principal) + "/x", "w/1", "w/2", "from/127.0.0.1"}, RandomNames...)
}
