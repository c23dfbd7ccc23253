package broker

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/disk"
)

func look(by, about string) *event.Audit {
	return &event.Audit{By: by, Door: "http", What: "explain", About: about, Result: "told"}
}

// Each look and each change is written in the order of the log, with the domain that it is
// about; whom it concerns are told of it, unless it is hidden from them. Every node and a
// restart have the same.
func TestAuditIsWritten(t *testing.T) {
	n1, n2 := openMachine(t, disk.Memory(), "/data/n1", "n1"), openMachine(t, disk.Memory(), "/data/n2", "n2")
	n1.compile, n2.compile = parseTenants, parseTenants
	d := drive(t, n1, n2)
	if a := d.entry(look("cy@a.org", "x@a.org")); a[0].err == nil {
		t.Error("a look is taken before the level")
	}
	hidden := look("sec@a.org", "x@a.org")
	hidden.Hidden = true
	d.entry(&event.Raise{Level: uint8(LevelPolicies)}, &event.PutPolicy{Data: []byte("tenant a.org\n"), By: "root@o.org"})
	d.entry(look("cy@a.org", "x@a.org"), look("cy@b.org", "y@b.org"), hidden, look("cy@a.org", "*@a.org"), partPut("a.org", "allow x@a.org a/#", 0),
		partPut("b.org", "allow y@b.org b/#", 0), look("root@o.org", ""))
	text := func(q AuditQuery) (all string) {
		q.Most = 100
		entries, more, lost := readAudit(n1.store, q, AuditKept)
		for _, e := range entries {
			all += fmt.Sprintf("%d %s %s %s %s; ", e.Number, e.By, e.What, e.About, e.Result)
			if e.At == 0 {
				t.Errorf("%+v", e)
			}
		}
		if more != 0 || lost != 0 {
			t.Errorf("more %d, lost %d", more, lost)
		}
		return all
	}
	want := map[AuditQuery]string{
		{Domain: "a.org"}:                   "4 cy@a.org policy put *@a.org policy 1; 3 cy@a.org explain *@a.org told; 2 sec@a.org explain x@a.org told; 1 cy@a.org explain x@a.org told; ",
		{Domain: "a.org", About: "x@a.org"}: "4 cy@a.org policy put *@a.org policy 1; 3 cy@a.org explain *@a.org told; 1 cy@a.org explain x@a.org told; ",
		{Domain: "a.org", About: "z@a.org"}: "4 cy@a.org policy put *@a.org policy 1; 3 cy@a.org explain *@a.org told; ",
		{Domain: "b.org"}:                   "2 cy@b.org policy put *@b.org refused: the operator's policy has no such tenant; 1 cy@b.org explain y@b.org told; ",
		{}:                                  "2 root@o.org explain  told; 1 root@o.org policy put  policy 1; ",
		{Domain: "c.org"}:                   "",
	}
	for restart := range 2 {
		for q, want := range want {
			if got := text(q); got != want {
				t.Errorf("restart %d: %+v: %s, want %s", restart, q, got, want)
			}
		}
		if err := n1.load(); err != nil {
			t.Fatal(err)
		}
	}
}

// The audit of a domain is bounded by number and bytes, the oldest goes and is counted, also
// within one entry of the log; another domain's is not touched. What is told is told in pages.
func TestAuditIsBounded(t *testing.T) {
	m := openMachine(t, disk.Memory(), "/data/n1", "n1")
	d := drive(t, m)
	d.entry(&event.Raise{Level: uint8(LevelPolicies)}, look("cy@b.org", "y@b.org"))
	var many []event.Command
	for range 1_000 {
		many = append(many, look("cy@a.org", "x@a.org"))
	}
	for range AuditKept/1_000 + 1 {
		d.entry(many...)
	}
	check := func(kept int) (s auditState) {
		t.Helper()
		entries, _, lost := readAudit(m.store, AuditQuery{Domain: "a.org", Most: 2 * AuditKept}, 2*AuditKept)
		bytes := 0
		m.store.Scan(auditKey("a.org", 0), auditKey("a.org", 1<<62), func(_, value []byte) bool { bytes += len(value); return true })
		s = *m.audits["a.org"]
		if kept > 0 && len(entries) != kept || uint64(len(entries))+lost != s.next-1 || uint64(bytes) != s.bytes || bytes > AuditBytesKept {
			t.Errorf("%d entries, %d lost, %d bytes; %+v", len(entries), lost, bytes, s)
		}
		return s
	}
	check(AuditKept)
	large := look("cy@a.org", "x@a.org")
	large.Result = strings.Repeat("x", 5_000)
	many = many[:0]
	for range 500 {
		many = append(many, large)
	}
	for range 6 {
		d.entry(many...)
	}
	if s := check(0); s.next-s.first > AuditBytesKept/mostAuditField {
		t.Errorf("%+v", s)
	}
	if entries, _, lost := readAudit(m.store, AuditQuery{Domain: "b.org", Most: 10}, 10); len(entries) != 1 || lost != 0 {
		t.Errorf("%v, %d lost of another domain", entries, lost)
	}
	page, more, _ := readAudit(m.store, AuditQuery{Domain: "a.org", Most: 700}, AuditKept)
	next, _, _ := readAudit(m.store, AuditQuery{Domain: "a.org", Most: 700, Before: more}, AuditKept)
	if len(page) != 700 || len(next) != 700 || page[699].Number != more || next[0].Number != more-1 {
		t.Errorf("pages of %d and %d, the second after %d", len(page), len(next), more)
	}
}

// What is about very many domains is written with the operator's past a bound.
func TestAuditedDomainsAreBounded(t *testing.T) {
	m := openMachine(t, disk.Memory(), "/data/n1", "n1")
	d := drive(t, m)
	d.entry(&event.Raise{Level: uint8(LevelPolicies)})
	var many []event.Command
	for i := range MostAudited + 10 {
		many = append(many, look("root@o.org", fmt.Sprintf("x@d%d.org", i)))
	}
	d.entry(many...)
	rest, _, _ := readAudit(m.store, AuditQuery{Most: 100}, AuditKept)
	if len(m.audits) > MostAudited+1 || len(rest) == 0 {
		t.Errorf("%d domains, %d entries with the operator's", len(m.audits), len(rest))
	}
}
