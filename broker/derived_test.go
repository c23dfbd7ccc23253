package broker

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/broker/store"
)

// sameCounts compares what a Machine keeps beside its state with what another has that holds
// the same, however each came to it: by applying the log, or by reading the state. Digests do
// not tell that these differ, and the nodes would refuse different things soon.
func sameCounts(t testing.TB, when string, is, want *Machine) {
	t.Helper()
	a, b := derived(is), derived(want)
	for name := range maps.Keys(b) {
		if _, ok := a[name]; !ok {
			a[name] = ""
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if a[name] != b[name] {
			t.Errorf("%s: %s: %s, want %s", when, name, cmp.Or(a[name], "none"), cmp.Or(b[name], "none"))
		}
	}
}

// derived is what a Machine counts and indexes, and decides by, in words, by name. What is
// zero or empty is left out.
func derived(m *Machine) map[string]string {
	d := map[string]string{}
	add := func(name string, values ...any) {
		text := fmt.Sprint(values...)
		if strings.Trim(text, "0 []map") != "" {
			d[name] = text
		}
	}
	for name := range m.domains.counts {
		add("uses of "+name, used(m, name))
		for from, n := range m.domains.counts[name].watchers {
			add("watchers of "+name+" from "+from, n)
		}
	}
	for name, c := range m.users {
		add("subscriptions of "+name, c.subs, " ", c.wildcards)
	}
	add("of nobody", m.nobody.sessions, " ", m.nobody.retained)
	for owner, use := range m.delayed.of {
		add(fmt.Sprintf("delayed of %q", owner), use.events, " ", use.bytes)
	}
	add("delayed", m.delayed.all.events, " ", m.delayed.all.bytes, " ", m.delayed.nobody)
	add("subscriptions", m.durable.Len(), " ", m.durable.Weight(), " ", m.durable.DeepLevels())
	add("retained topics", m.retained.Load())
	add("sessions", m.known.Load())
	add("awaiting", m.awaiting.sessions.Load(), " ", m.awaiting.subscriptions.Load(), " ", m.awaiting.events.Load(), " ", m.awaiting.bytes.Load())
	add("waiting in groups", m.sharedWaiting.Load())
	for principal, n := range m.founded {
		add("groups founded by "+principal, n)
	}
	for principal, of := range m.principals {
		add("sessions of "+principal, of.numbers)
	}
	for number, s := range m.segments {
		add(fmt.Sprint("segment ", number), s.live, " ", s.bodies)
	}
	for session, n := range m.asking {
		add(fmt.Sprint("requests of session ", session), n)
	}
	for principal, topics := range m.provided {
		add("provided to "+principal, topics)
	}
	for name := range m.parts {
		add("part of "+name, "there")
	}
	for name, n := range m.audits {
		add("audit of "+name, fmt.Sprintf("%+v", *n))
	}
	add("bans", len(m.bans.byName), " ", m.bans.auto, " ", m.bans.bits)
	for client, r := range m.sessions {
		add("session "+client, r.subs, " ", r.wildcards, " ", slices.Sorted(maps.Keys(r.inbound)), " ", r.marks, " ", r.refs, " ", r.queue.bytes, " ", r.copies)
	}
	for number, g := range m.groups {
		members := make([]uint64, 0, len(g.members))
		for _, one := range g.members {
			members = append(members, one.r.session)
		}
		add(fmt.Sprint("group ", number), g.filter, " ", g.founder, " ", members, " ", len(g.present), " ", g.counted)
	}
	return d
}

// orphans returns how many subscriptions are there without their sessions.
func (u *machineUnderTest) orphans() (n uint64) {
	u.store.Scan([]byte{byte(store.Subs)}, store.End([]byte{byte(store.Subs)}), func(key, _ []byte) bool {
		if u.numbers[store.Uint64At(key, 1)] == nil {
			n++
		}
		return true
	})
	return n
}
