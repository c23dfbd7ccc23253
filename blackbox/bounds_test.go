package blackbox

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// A boundCase is a bound of documents, what is exactly within it, and what is one more.
type boundCase struct {
	row, max     string
	topic        string
	fits, passes string
	props        mq.Properties
}

// boundCases are one or more of each row.
func boundCases() []boundCase {
	const rulesOf = "$me/policy/presence"
	padded := func(text string, n int) string { return text + strings.Repeat(" ", n-len(text)) }
	lists := func(deep int) string {
		return `{"basic":"open","x":` + strings.Repeat("[", deep-1) + "1" + strings.Repeat("]", deep-1) + `}`
	}
	members := func(n int) string { return `{"basic":"open","x":[` + strings.Repeat("1,", n-3) + `1]}` }
	pidf := func(inner string) string { // eight nodes, four deep
		return `<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="pres:bob@example.com"><tuple id="a"><status><basic>open</basic>` + inner + `</status></tuple></presence>`
	}
	element := func(deep int) string {
		return `{"basic":"open","ext":[{"ns":"u","name":"a","xml":"<a xmlns='u'>` + strings.Repeat("<b>", deep-1) + strings.Repeat("</b>", deep-1) + `</a>"}]}`
	}
	sent := func(recipients, reports int) string {
		return `{"to":["im:bob@example.com"` + strings.Repeat(`,"im:carol@example.com"`, recipients-1) + `],"wants":["delivered"` + strings.Repeat(`,"displayed"`, reports-1) + `],"body":"x"}`
	}
	xml := mq.Properties{mq.Text(mq.PropContentType, "application/pidf+xml")}
	return []boundCase{
		{"document.bytes", "400B", bobsPresence, padded(`{"basic":"open"}`, 400), padded(`{"basic":"open"}`, 401), nil},
		{"document.bytes", "400B", bobsInbox, padded(sent(1, 1), 400), padded(sent(1, 1), 401), nil},
		{"json.depth", "7", bobsPresence, lists(7), lists(8), nil},
		{"json.members", "20", bobsPresence, members(20), members(21), nil},
		{"xml.depth", "4", bobsPresence, pidf("<x:a xmlns:x='u'/>"), pidf("<x:a xmlns:x='u'><x:a/></x:a>"), xml},
		{"xml.depth", "4", bobsPresence, element(4), element(5), nil},
		{"xml.nodes", "8", bobsPresence, pidf(""), pidf("<x:a xmlns:x='u'/>"), xml},
		{"policy.rules", "3", rulesOf, manyRules(3), manyRules(4), nil},
		{"policy.bytes", "600B", rulesOf, padded(manyRules(2), 600), padded(manyRules(2), 601), nil},
		{"policy.bytes", "100B", "$me/blocklist", padded(`{"v":1,"blocked":[]}`, 100), padded(`{"v":1,"blocked":[]}`, 101), nil},
		{"message.recipients", "3", bobsInbox, sent(3, 1), sent(4, 1), nil},
		{"message.reports", "2", bobsInbox, sent(1, 2), sent(1, 3), nil},
	}
}

// manyRules is a policy of so many rules, by which alice sees services.
func manyRules(n int) string {
	rules := make([]string, n)
	for i := range rules {
		rules[i] = fmt.Sprintf(`{"id":"r%d","if":{"identity":[{"one":"pres:alice@example.net"}]},"then":{"handling":"allow"},"show":{"services":["*"]}}`, i)
	}
	return `{"v":1,"rules":[` + strings.Join(rules, ",") + `]}`
}

// boundDocuments has rows in force beside what lets sources publish often.
func (s *server) boundDocuments(file string, rows ...string) {
	s.t.Helper()
	text := "v: 1\ndefault: {" + strings.Join(append(rows, "source.perSecond: 1000", "source.burst: 1000"), ", ") + "}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.reload()
}

// Documents, owners' policies and messages have bounds of a node's own. Each lets pass what is
// exactly within it, refuses one more, counts that under its name and tells it below $SYS,
// whichever door it comes by; elements within JSON and properties are bounded as what they are.
func TestDocumentBounds(t *testing.T) {
	t.Parallel()
	file := limitsFile(t, "v: 1\ndefault: {source.perSecond: 1000, source.burst: 1000}\n")
	s := kinds(t, "2026-03-09T12:00:00Z", "--limits", file)
	pc := s.person(bob, "pc")
	counted := func(row string) float64 {
		return s.metric("bellwire_limit_refused_total", fmt.Sprintf("limit=%q", row))
	}
	for _, c := range boundCases() {
		s.boundDocuments(file, c.row+": "+c.max)
		was := counted(c.row)
		refusedBy(t, pc, mq.Publish{Topic: c.topic, Payload: []byte(c.fits), Properties: c.props}, 0)
		refusedBy(t, pc, mq.Publish{Topic: c.topic, Payload: []byte(c.passes), Properties: c.props}, 0x99)
		if got := counted(c.row) - was; got != 1 {
			t.Errorf("%s: %v refusals of %.60q are counted, want 1", c.row, got, c.passes)
		}
	}
	s.boundDocuments(file, "message.reports: 1", "policy.rules: 2")
	wants := func(what string) mq.Publish {
		return mq.Publish{Topic: bobsInbox, Payload: []byte("x"), Properties: mq.Properties{mq.Text(mq.PropContentType, "text/plain"), mq.User("evt-wants", what)}}
	}
	was := counted("message.reports")
	refusedBy(t, pc, wants("delivered"), 0)
	refusedBy(t, pc, wants("delivered,displayed"), 0x99)
	if got := counted("message.reports") - was; got != 1 {
		t.Errorf("%v refusals of evt-wants are counted, want 1", got)
	}
	was = counted("policy.rules")
	if got := s.ask(bob, "PUT", "/v1/me/policy/presence", manyRules(2)); got.status/100 != 2 {
		t.Errorf("two rules by HTTP: %+v", got)
	}
	if got := s.ask(bob, "PUT", "/v1/me/policy/presence", manyRules(3)); got.status != 422 || counted("policy.rules")-was != 1 {
		t.Errorf("three rules by HTTP: %+v, %v are counted, want 422 and one", got, counted("policy.rules")-was)
	}
}

// A bound that is lowered takes nothing back: what was taken is shown, and by the policy that
// was set, also after a restart; what is as large and new is not taken.
func TestLowerBoundsKeepWhatIsThere(t *testing.T) {
	t.Parallel()
	file := limitsFile(t, "v: 1\ndefault: {source.perSecond: 1000, source.burst: 1000}\n")
	s := kinds(t, "2026-03-09T12:00:00Z", "--limits", file)
	large := `{"tuples":[{"id":"t","basic":"open","x":[[[[[[1]]]]]]}]}`
	pc := s.person(bob, "pc")
	refusedBy(t, pc, mq.Publish{Topic: "$me/policy/presence", Payload: []byte(manyRules(9))}, 0)
	pc.PublishMessage(retained(bobsPresence, large))
	shown := func() {
		t.Helper()
		phone := s.person(alice, "phone")
		phone.Subscribe(bobsPresence, 1)
		if got := phone.Receive(); !strings.Contains(string(got.Payload), `"basic":"open"`) {
			t.Errorf("alice is shown %s, want that bob is open", got.Payload)
		}
		phone.Disconnect()
	}
	shown()
	s.boundDocuments(file, "document.bytes: 30B", "json.depth: 1", "json.members: 2", "policy.bytes: 30B", "policy.rules: 1")
	refusedBy(t, pc, retained(bobsPresence, large), 0x99)
	shown()
	s.restart()
	shown()
	pc = s.person(bob, "pc")
	refusedBy(t, pc, mq.Publish{Topic: "$me/policy/presence", Payload: []byte(manyRules(9))}, 0x99)
	refusedBy(t, pc, retained(bobsPresence, `{"basic":"closed"}`), 0)
}

// What is said before anybody has signed in is one packet of 512 bytes at most, whatever was
// sent, and nothing follows it; to who has sent no CONNECT nothing is said at all.
func TestAnswersBeforeSignInAreSmall(t *testing.T) {
	t.Parallel()
	const most = 512
	s := serve(t, "--policy", policyFile(t, []string{"ana"}, anaMayAll))
	connect := func(version byte, m mq.Connect) []byte { return m.Encode(version) }
	long := strings.Repeat("x", 3500)
	scram := mq.Properties{mq.Text(mq.PropAuthMethod, "SCRAM-SHA-256"), mq.Binary(mq.PropAuthData, []byte("n,,n=ana,r="+long[:1000]))}
	largest, times := 0, 0.0
	for name, sent := range map[string][]byte{
		"nothing":                 nil,
		"half a CONNECT":          connect(v5, clean("x"))[:10],
		"no MQTT":                 []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"a PUBLISH":               mq.Publish{Topic: "x", Payload: []byte("x")}.Encode(v5),
		"nobody":                  connect(v5, mq.Connect{Clean: true}),
		"nobody of 3.1.1":         connect(v4, mq.Connect{Clean: true}),
		"a wrong password":        connect(v5, mq.Connect{Clean: true, User: "ana", Password: []byte("x")}),
		"a long user":             connect(v5, mq.Connect{Clean: true, User: long, Password: []byte("x")}),
		"a long client id":        connect(v5, as("ana", clean(long))),
		"a bad client id":         connect(v5, as("ana", clean("a\x00b"))),
		"a version there is not":  bytes.Replace(connect(v5, clean("")), []byte("MQTT\x05"), []byte("MQTT\x09"), 1),
		"an unknown method":       connect(v5, mq.Connect{Clean: true, Properties: mq.Properties{mq.Text(mq.PropAuthMethod, long[:3000])}}),
		"a property of no packet": connect(v5, mq.Connect{Clean: true, Properties: mq.Properties{mq.Text(mq.PropReasonString, "x")}}),
	} {
		got := s.answered(sent)
		if got > most || sent == nil && got > 0 {
			t.Errorf("%s: %d bytes are answered to %d, want at most %d", name, got, len(sent), most)
		}
		if got > 0 && !strings.Contains(name, "wrong") {
			times = max(times, float64(got)/float64(len(sent)))
		}
		largest = max(largest, got)
	}
	// A challenge has what the client said of it, and some more.
	if sent := connect(v5, mq.Connect{Clean: true, Properties: scram}); s.answered(sent) > len(sent)+most {
		t.Errorf("a challenge has more than %d bytes beside the client's", most)
	}
	t.Logf("the largest answer before sign-in has %d bytes, the most for what was sent is %.1f times as much", largest, times)
}

// answered sends bytes on a connection of their own, says that no more come, and returns how
// many come back until the server closes it.
func (s *server) answered(sent []byte) int {
	s.t.Helper()
	c, err := net.Dial("tcp", s.ready.MQTT)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(mq.Patience))
	if _, err := c.Write(sent); err != nil {
		s.t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	got, err := io.ReadAll(c)
	if err != nil && len(got) == 0 && os.IsTimeout(err) {
		s.t.Errorf("%.20q: %v", sent, err)
	}
	return len(got)
}
