package letter

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// A Random makes up documents out of few people, topics, zones and hours, so that rules
// meet. Windows begin and end at full hours.
type Random struct {
	*rand.Rand
	People  []string  // addresses
	Clients []string  // their client ids
	Around  time.Time // instants in documents are within some days of it

	// Names says that topics are rewritten, and clients given subscriptions, too.
	Names bool

	// Inboxes are those to which messages are forwarded; nil: they are not.
	Inboxes []string
}

type object = map[string]any

var (
	randomZones   = []string{"UTC", "Europe/Madrid", "America/Chicago", "Asia/Kathmandu", "Australia/Lord_Howe", "Africa/Cairo"}
	randomDays    = [][]string{{"mon", "tue", "wed", "thu", "fri"}, {"sat", "sun"}, {"sun", "mon", "tue", "wed", "thu", "fri", "sat"}, {"fri", "sat"}}
	randomLines   = []string{"Mon-Fri", "Sat,Sun", "Sun-Sat", "Fri,Sat"}
	randomHours   = [][2]string{{"08:00", "17:00"}, {"22:00", "06:00"}, {"00:00", "12:00"}, {"12:00", "24:00"}, {"02:00", "03:00"}, {"09:00", "10:00"}, {"00:00", "24:00"}}
	randomFilters = []string{"w/#", "w/a/#", "w/+/x", "w/b/y", "m/#", "m/+", "#", "w/a/x", "w/{local}/#", "c/{client}/#", "d/{domain}/+"}
	randomCut     = []string{"w/#", "w/a/#", "w/+/x", "w/b/y", "m/#", "m/+", "w/a/x", "w/{local}/#", "c/{client}/#", "d/{domain}/+", "+/+/+"} // not all: something is always to be allowed
	randomOwned   = []string{"presence/#", "location/#", "im/#", "presence/example.com/ana", "location/example.com/+", "im/example.com/bob", "presence/{domain}/#"}
)

func pick[T any](r *Random, from []T) T { return from[r.IntN(len(from))] }

// Chance is true once in n times.
func (r *Random) Chance(n int) bool { return r.IntN(n) == 0 }

func (r *Random) instant() time.Time {
	return r.Around.Add(time.Duration(r.IntN(14*24)-3*24) * time.Hour).Truncate(time.Hour)
}

// around returns two instants, in their order.
func (r *Random) spanOf() (from, until time.Time) {
	from = r.instant()
	return from, from.Add(time.Duration(1+r.IntN(100)) * time.Hour)
}

func (r *Random) date() string { return r.instant().Format(time.DateOnly) }

// TokenOf is what a principal of these documents signs in with.
func TokenOf(principal string) string { return "token-" + principal }

// Operator makes up the operator's policy. users are who can sign in, each by what it says
// of them. fixed are rules that it has in any case, and groups are those besides "night"
// and "day", which are drawn.
func (r *Random) Operator(users map[string]any, fixed []any, groups map[string][]string) []byte {
	all := object{"night": r.some(), "day": r.some()}
	for name, of := range groups {
		all[name] = of
	}
	rules := append([]any{}, fixed...)
	for i := range 3 + r.IntN(6) {
		rules = append(rules, r.operatorRule(i))
	}
	document := object{"users": users, "groups": all, "rules": rules, "durability": object{"memory": []string{"m/#"}, "log": []string{"m/kept"}}}
	var limits []any
	for i := range max(0, r.IntN(4)-1) {
		limits = append(limits, r.operatorLimit(i))
	}
	if limits != nil {
		document["limits"] = limits
	}
	if r.Names {
		rewritings, givings := r.names()
		if rewritings != nil {
			document["rewrite"] = rewritings
		}
		if givings != nil {
			document["subscriptions"] = givings
		}
	}
	return encode(document)
}

func (r *Random) some() []string {
	var list []string
	for _, p := range r.People {
		if r.Chance(2) {
			list = append(list, p)
		}
	}
	if list == nil {
		list = r.People[:1]
	}
	return list
}

func (r *Random) whom() []string {
	return []string{pick(r, []string{"anyone", "*@*", "*@example.com", "*@example.net", "group:night", "group:day", "anonymous", pick(r, r.People)})}
}

func (r *Random) operatorRule(i int) object {
	rule := object{"id": fmt.Sprint("r", i), "who": r.whom(), "topic": []string{pick(r, randomFilters)}}
	actions := pick(r, [][]string{{"subscribe"}, {"publish"}, {"publish", "subscribe"}, {"publish", "subscribe"}})
	switch {
	case r.Chance(4):
		rule["deny"] = actions
		rule["topic"] = []string{pick(r, randomCut)}
		if r.Chance(3) {
			rule["topic"] = []string{pick(r, randomOwned)}
		}
	default:
		rule["allow"] = actions
		if r.Chance(2) {
			rule["who"] = []string{"anyone"}
		}
		if r.Chance(3) {
			rule["topic"] = []string{"w/#", "m/#"}
		}
	}
	if r.Chance(2) {
		rule["when"] = r.When()
		if rule["allow"] != nil && actions[len(actions)-1] == "subscribe" {
			rule["outside"] = pick(r, []string{"hold", "hold", "hold", "announce", "end"})
		}
	}
	return rule
}

func (r *Random) operatorLimit(i int) object {
	only := object{}
	if r.Chance(2) {
		only["when"] = r.When()
	}
	if len(only) == 0 || r.Chance(2) {
		only["who"] = append(r.whom(), r.whom()...)
	}
	topic := pick(r, randomCut)
	if r.Chance(2) {
		topic = pick(r, randomOwned)
	}
	return object{"id": fmt.Sprint("l", i), "topic": []string{topic}, "only": only}
}

// When makes up when a rule of the operator's is open.
func (r *Random) When() map[string]any {
	when := object{}
	if !r.Chance(4) {
		var lines []string
		for range 1 + r.IntN(2) {
			h := pick(r, randomHours)
			lines = append(lines, pick(r, randomLines)+" "+h[0]+"-"+h[1])
		}
		when["weekly"], when["tz"] = lines, pick(r, randomZones)
		if r.Chance(4) {
			when["except"] = []string{r.date()}
		}
	}
	if len(when) == 0 || r.Chance(4) {
		from, until := r.spanOf()
		when["from"], when["until"] = from.Format(time.RFC3339), until.Format(time.RFC3339)
	}
	return when
}

// Owner makes up what an owner of a kind says.
func (r *Random) Owner(kind string) []byte {
	document := object{"v": 1, "kind": kind}
	if r.Chance(2) {
		document["defaults"] = object{"handling": pick(r, []string{"block", "confirm", "polite-block"})}
	}
	var rules, limits []any
	for i := range r.IntN(5) {
		rules = append(rules, r.ownerRule(kind, i))
	}
	if r.Chance(3) {
		only := r.conditions(kind)
		delete(only, "identity")
		if len(only) == 0 {
			only["weekly"] = r.weekly()
		}
		limits = append(limits, object{"id": "l0", "who": r.identity(), "only": only})
	}
	if rules != nil {
		document["rules"] = rules
	}
	if limits != nil {
		document["limits"] = limits
	}
	if r.Chance(5) {
		d := object{"one": "pres:" + pick(r, r.People), "read": true}
		if r.Chance(2) {
			d["until"] = r.instant().Format(time.RFC3339)
		}
		document["delegates"] = []any{d}
	}
	return encode(document)
}

func (r *Random) identity() object {
	one := object{"one": "pres:" + pick(r, r.People)}
	switch r.IntN(5) {
	case 0:
		return object{"identity": []any{one, object{"one": "im:" + pick(r, r.People)}}}
	case 1:
		return object{"identity": []any{object{"many": object{"domain": pick(r, []string{"example.com", "example.net"})}}}}
	case 2:
		return object{"identity": []any{object{"many": object{"except": []any{object{"id": "pres:" + pick(r, r.People)}, object{"domain": "example.net"}}}}}}
	case 3:
		return object{}
	}
	return object{"identity": []any{one}}
}

func (r *Random) weekly() object {
	var windows []any
	for range 1 + r.IntN(2) {
		h := pick(r, randomHours)
		windows = append(windows, object{"days": pick(r, randomDays), "start": h[0], "end": h[1]})
	}
	weekly := object{"tz": pick(r, randomZones), "windows": windows}
	if r.Chance(4) {
		weekly["exceptDates"] = []string{r.date()}
	}
	return weekly
}

func (r *Random) conditions(kind string) object {
	c := r.identity()
	if r.Chance(2) {
		c["weekly"] = r.weekly()
	}
	if r.Chance(4) {
		var spans []any
		for range 1 + r.IntN(2) {
			from, until := r.spanOf()
			spans = append(spans, object{"from": from.Format(time.RFC3339), "until": until.Format(time.RFC3339)})
		}
		c["validity"] = spans
	}
	if kind == "presence" && r.Chance(4) {
		c["sphere"] = []string{pick(r, []string{"work", "home", "WORK"})}
	}
	if kind == "im" && r.Chance(3) {
		c["contact"] = r.Chance(2)
	}
	if r.Chance(10) {
		c["visibility"] = []string{pick(r, []string{"identified", "anonymous"})}
	}
	if r.Chance(10) {
		c["auth"] = pick(r, []int{0, 10, 20, 30})
	}
	if r.Chance(10) {
		op := pick(r, []string{"subscribe", "fetch"})
		if kind == "im" {
			op = "publish"
		}
		c["op"] = []string{op}
	}
	if r.Chance(20) {
		c["moonPhase"] = "full"
	}
	return c
}

func (r *Random) ownerRule(kind string, i int) object {
	then := object{"handling": pick(r, []string{"allow", "allow", "allow", "allow", "block", "polite-block", "confirm"})}
	if then["handling"] == "allow" && r.Chance(6) && kind != "im" {
		then["outside"] = "hold"
	}
	if kind == "im" && r.Inboxes != nil && r.Chance(3) {
		then["forward"] = "im:" + pick(r, r.Inboxes)
	}
	conditions := r.conditions(kind)
	if r.Chance(8) { // a rule that decides alone has no conditions that come and go
		then["alone"] = true
		delete(conditions, "weekly")
		delete(conditions, "sphere")
	}
	return object{"id": fmt.Sprint("r", i), "if": conditions, "then": then, "show": r.show(kind)}
}

func (r *Random) show(kind string) object {
	show := object{}
	some := func(n int, name string, value any) {
		if r.Chance(n) {
			show[name] = value
		}
	}
	switch kind {
	case "presence":
		some(1, "services", pick(r, [][]string{{"*"}, {"im"}, {"class:biz"}, {"id:work", "sip"}, {}}))
		some(2, "persons", []string{"*"})
		some(2, "devices", []string{"*"})
		for _, name := range []string{"activities", "mood", "note", "placeType", "deviceID", "class", "sphere"} {
			some(3, name, true)
		}
		some(12, "all", true)
		some(4, "unknown", pick(r, [][]string{{"*"}, {"xtra"}, {"other"}}))
		some(2, "userInput", pick(r, words["userInput"]))
	case "location":
		some(2, "civic", pick(r, words["civic"]))
		some(2, "radius", pick(r, []int{0, 100, 1000, 50_000}))
	case "im":
		some(1, "send", !r.Chance(4))
		some(2, "typing", true)
		some(2, "receipts", true)
	}
	return show
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// Address returns the parts of an address as they stand in topics of a kind.
func Address(kind, who string) (topic string) {
	local, domain, _ := strings.Cut(who, "@")
	return kind + "/" + domain + "/" + local
}
