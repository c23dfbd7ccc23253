package broker

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// ForgetAfter is how long somebody must have been missing from the policy, in log time,
// before profiles begin to forget what is theirs: an operator who has left somebody out
// by mistake has so long to find out. Sessions and queues end at once.
const ForgetAfter = 24 * time.Hour

// applyPolicy puts a policy in force.
func (m *Machine) applyPolicy(c *event.Policy) error { return m.putPolicy(c.Data, "") }

// adopt puts a policy that compiles in force. What it means for sessions and
// subscriptions there are, which may be many, is done by wakes.
func (m *Machine) adopt(policy Authorizer) {
	m.removeStrangers(m.policy, policy)
	m.policy, m.inForce = policy, m.now
	m.notGiven = nil
	m.domains.adopt(policy)
	m.delayed.adopt(policy)
	m.durable.Invalidate()
	m.endEra()
	m.reconsiderAll()
	m.tx.Set(inForceKey, store.AppendUint64(nil, uint64(m.now)))
	m.setWakeName(m.now, wakeTerms, "")
	m.out.steps = append(m.out.steps, step{kind: stepPolicy, policy: policy, number: m.history.number(), position: m.here()})
}

// removeStrangers has the sessions end of whom before names and after does not.
// Who could sign in as somebody that rules still speak of, because they speak of
// a whole domain, is not that somebody any more: nothing may wait for him. Nor is what was
// his published, also if it was due before and is late: the rules, if they are about
// everybody, would permit it.
func (m *Machine) removeStrangers(before, after Authorizer) {
	was, ok1 := before.(knower)
	is, ok2 := after.(knower)
	if !ok1 || !ok2 {
		return
	}
	at := m.now
	if m.level >= LevelDelayed {
		at = beforeAllDue
	}
	for _, r := range m.sessions { // in any order: they become keys
		if r.principal != "" && was.Knows(r.principal) && gone(is, r.principal) {
			m.setWake(at, wakeStranger, r.session, 0)
		}
	}
	for owner := range m.delayed.of { // likewise
		if was.Knows(owner) && gone(is, owner) {
			m.setWakeName(at, wakeUndelay, owner)
		}
	}
	if m.level < levelForgets {
		return
	}
	for _, principal := range was.Known() {
		if gone(is, principal) {
			m.depart(principal)
		}
	}
	for principal := range m.left { // in any order: they become keys
		if !gone(is, principal) {
			m.undepart(principal)
		}
	}
}

// gone says whether somebody is none of the policy's people, and nothing that it trusts
// proves him: an issuer, say, whose token he may have signed in by all along.
func gone(is knower, principal string) bool {
	if is.Knows(principal) {
		return false
	}
	c, ok := is.(credentialer)
	return !ok || c.Credential(principal, "") == ""
}

// depart notes that the policy has ceased to name somebody, who is forgotten in time.
func (m *Machine) depart(principal string) {
	m.left[strings.Clone(principal)] = m.now
	m.tx.Set(leftKey(principal), store.AppendUint64(nil, uint64(m.now)))
	m.setWakeName(m.now+int64(ForgetAfter), wakeForget, principal)
}

// undepart takes back what depart has noted. Without its wake somebody who leaves a second
// time would be forgotten when the first time is over.
func (m *Machine) undepart(principal string) {
	m.tx.Delete(wakeNameKey(m.key, m.left[principal]+int64(ForgetAfter), wakeForget, principal))
	m.tx.Delete(leftKey(principal))
	delete(m.left, principal)
}

func leftKey(principal string) []byte { return append(slices.Clone(leftPrefix), principal...) }

// loadLeft reads who has left and is not being forgotten yet.
func (m *Machine) loadLeft() {
	m.left = map[string]int64{}
	m.store.Scan(leftPrefix, store.End(leftPrefix), func(key, value []byte) bool {
		m.left[string(key[len(leftPrefix):])] = int64(store.Uint64At(value, 0))
		return true
	})
}

// forget has one profile remove a piece of what it keeps of somebody: id is whom,
// and behind a NUL the profile, if it has begun. What has begun is done to the end:
// who is given the name meanwhile must not find the rest.
func (m *Machine) forget(id string) {
	principal, prefix, begun := strings.Cut(id, "\x00")
	if !begun {
		if _, left := m.left[principal]; !left {
			return // he is back
		}
		m.undepart(principal) // it is the profiles' now
	}
	if m.bare {
		return
	}
	at, _ := slices.BinarySearch(m.prefixes, prefix)
	for _, prefix := range m.prefixes[at:] {
		f, ok := m.profiles[prefix].(Forgetter)
		if !ok {
			continue
		}
		m.spend(forgetWeight)
		if f.Forget(&ProfileTx{m: m, prefix: prefix}, principal) {
			if at := slices.Index(m.prefixes, prefix) + 1; at < len(m.prefixes) {
				m.setWakeName(m.now, wakeForget, principal+"\x00"+m.prefixes[at])
			}
		} else {
			m.setWakeName(m.now, wakeForget, principal+"\x00"+prefix)
		}
		return
	}
}

// removeStranger ends a session of somebody whom the policy has ceased to name,
// with its queue, and without its will: nobody is left who could publish it.
func (m *Machine) removeStranger(session uint64) {
	r := m.numbers[session]
	if r == nil {
		return
	}
	if p, ok := m.policy.(knower); !ok || !gone(p, r.principal) {
		return // he is back
	}
	if r.will != nil {
		r.will = nil
		m.out.willsRefused++
	}
	m.endSession(r, &Refusal{Reason: "the policy does not know the user any more"})
}

// domain is that of bare names in the policy.
func (m *Machine) domain() string {
	if m.settings == nil {
		return m.beginDomain
	}
	return m.settings.Domain
}

// applyProfileSettings puts settings of a profile in force, from the next command
// on.
func (m *Machine) applyProfileSettings(c *event.ProfileSettings) error {
	p, ok := m.profiles[c.Profile].(Configurable)
	if _, since4 := p.(Adjustable); !ok || since4 && m.level < LevelRequests { // before, it had none
		return &Refusal{Reason: fmt.Sprintf("settings: there is no profile %.40q that has any", c.Profile)}
	}
	if err := p.CheckSettings(c.Data); err != nil {
		return &Refusal{Reason: "settings: " + err.Error()}
	}
	m.ofProfiles[strings.Clone(c.Profile)] = bytes.Clone(c.Data)
	m.tx.Set(ofProfileKey(c.Profile), c.Data)
	m.out.steps = append(m.out.steps, step{kind: stepAdjust})
	return nil
}

func ofProfileKey(prefix string) []byte { return append(slices.Clone(ofProfile), prefix...) }

// applySettings puts settings in force: for queues from the next entry on, as fast
// as trim goes, for what there is otherwise only when it grows. Under another domain the policy may say something
// else; if it then says nothing, nothing is changed.
func (m *Machine) applySettings(c *event.Settings) error {
	if err := checkSettings(c); err != nil {
		return err
	}
	s := *c
	s.Domain = strings.Clone(c.Domain)
	if m.policy != nil && s.Domain != m.domain() {
		policy, err := m.compile(m.policyData, s.Domain)
		if err != nil {
			return &Refusal{Reason: err.Error()}
		}
		m.operators = policy
		m.adopt(m.combined(policy))
	}
	s.Principals = strings.Clone(c.Principals)
	m.settings, m.limits, m.single = &s, m.begin.Agreed(&s), singleOf(s.Principals)
	m.tx.Set(settingsKey, s.Append(nil))
	for _, r := range m.sessions { // in any order: each is trimmed for itself
		m.noteOver(r)
	}
	for _, g := range m.groups { // likewise
		m.noteOver(&g.record)
	}
	m.reconsiderAll()
	for _, s := range m.streams.byID { // likewise
		m.noteFat(s)
	}
	m.rejudge()
	if len(m.over) > 0 || len(m.streams.fat) > 0 {
		m.setChore(wakeTrim, 0, 0)
	}
	m.out.steps = append(m.out.steps, step{kind: stepSettings, settings: &s})
	return nil
}
