package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// The examples of mosquitto_sub's manual page do what it says.
func TestSubManPageExamples(t *testing.T) { eachBroker(t, checkSubManPageExamples) }

func checkSubManPageExamples(t *testing.T, port string) {
	pub := func(args ...string) {
		t.Helper()
		if got := bellwire(t, "", append([]string{"pub", "-p", port}, args...)...); got.code != 0 {
			t.Fatalf("pub %q: %+v", args, got)
		}
	}
	live := []*liveSub{
		startSub(t, "-p", port, "-t", "sensors/temperature", "-q", "1"),
		startSub(t, "-p", port, "-t", "sensors/machines/+/temperature/+"),
		startSub(t, "-p", port, "-v", "-t", "bbc/#", "-T", "bbc/radio3"),
		startSub(t, "-p", port, "-F", `@Y-@m-@dT@H:@M:@S@z : %t : %x`, "-t", "sensors/#"),
		startSub(t, "-p", port, "-F", `\e[92m%t \e[96m%p\e[0m`, "-q", "2", "-t", "bbc/#"),
	}
	pub("-t", "sensors/temperature", "-m", "32", "-q", "1")
	pub("-t", "sensors/machines/web1/temperature/sda", "-m", "41")
	pub("-t", "bbc/radio3", "-m", "Bach")
	pub("-t", "bbc/radio4", "-m", "News")
	for i, want := range []string{"32", "41", "bbc/radio4 News"} {
		if got := live[i].next(t, 1); got != want+"\n" {
			t.Errorf("example %d: got %q, want %q", i, got, want)
		}
	}
	if got, want := live[3].next(t, 1), time.Now().Format("2006-01-02T15:"); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, " : sensors/temperature : 3332\n") {
		t.Errorf("got %q", got)
	}
	if got, want := live[4].next(t, 1), "\x1b[92mbbc/radio3 \x1b[96mBach\x1b[0m\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}

	// Retained messages, and getting rid of them.
	pub("-t", "bbc/bbc1", "-m", "1", "-r")
	pub("-t", "bbc/bbc2", "-m", "2", "-r")
	got := bellwire(t, "", "sub", "-p", port, "-v", "-t", "bbc/#", "-T", "bbc/bbc1", "--remove-retained", "-C", "1")
	if want := (ran{0, "bbc/bbc2 2\n", ""}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	got = bellwire(t, "", "sub", "-p", port, "-v", "-t", "bbc/#", "-C", "1")
	if want := (ran{0, "bbc/bbc1 1\n", ""}); got != want {
		t.Errorf("what is left: got %+v, want %+v", got, want)
	}
}

// A durable session set up with -c -E receives what is published while nobody
// listens, at every QoS that survives, in order.
func TestSubDurable(t *testing.T) { eachBroker(t, checkSubDurable) }

func checkSubDurable(t *testing.T, port string) {
	durable := func(args ...string) ran {
		return bellwire(t, "", append([]string{"sub", "-p", port, "-c", "-i", "inbox", "-q", "2", "-t", "a/#", "-W", "10"}, args...)...)
	}
	if got := durable("-E"); got != (ran{}) {
		t.Fatalf("-E: %+v", got)
	}
	for i := range 6 {
		if got := bellwire(t, "", "pub", "-p", port, "-t", "a/b", "-m", strconv.Itoa(i), "-q", strconv.Itoa(1+i%2)); got.code != 0 {
			t.Fatalf("%+v", got)
		}
	}
	if got, want := durable("-C", "2"), (ran{0, "0\n1\n", ""}); got != want {
		t.Errorf("the first two: got %+v, want %+v", got, want)
	}
	if got, want := durable("-C", "4"), (ran{0, "2\n3\n4\n5\n", ""}); got != want {
		t.Errorf("the rest: got %+v, want %+v", got, want)
	}
}

// -W ends with exit code 6, where mosquitto_sub has 27.
func TestSubWait(t *testing.T) {
	port := startMosquitto(t)
	got := bellwire(t, "", "sub", "-p", port, "-t", "a", "-W", "1")
	if got.code != exitTimeout || !strings.Contains(got.stderr, "1 s are over") || !strings.Contains(got.stderr, "BW-1005") {
		t.Errorf("got %+v", got)
	}
}

func TestSubUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "no topic to subscribe to\n  add -t FILTER "},
		{[]string{"-t", "a+"}, `-t "a+" is no topic filter: `},
		{[]string{"-t", "a", "-T", "#/a"}, `-T "#/a" is no topic filter: `},
		{[]string{"-t", "a", "-C", "0"}, "-C 0: want at least 1"},
		{[]string{"-t", "a", "-W", "0"}, "-W 0: want at least 1"},
		{[]string{"-t", "a", "-R", "--retained-only"}, "leave nothing to print"},
		{[]string{"-t", "a", "-o", "xml"}, `--output "xml": want jsonl`},
		{[]string{"-t", "a", "-o", "jsonl", "-v"}, "goes without -F and -v"},
		{[]string{"-t", "a", "--random-filter", "0"}, "want 0.1 to 100"},
		{[]string{"-t", "a", "-F", "%z"}, "unknown sequence %z"},
		{[]string{"-t", "a", "-F", "%5"}, "in the middle of a sequence: %5"},
		{[]string{"-t", "a", "-F", `\q`}, `unknown escape \q`},
		{[]string{"-t", "a", "-F", "@"}, "in the middle of a sequence: @"},
		{[]string{"-t", "a", "-V", "mqttv31"}, "only MQTT 5 is spoken here"},
		{[]string{"-t", "a", "-D", "publish", "content-type", "x"}, `"publish" cannot be set here`},
	} {
		got := bellwire(t, "", append([]string{"sub"}, c.args...)...)
		if got.code != exitUsage || !strings.Contains(got.stderr, c.want) || got.stdout != "" {
			t.Errorf("sub %q: %+v; want exit 2 and %q", c.args, got, c.want)
		}
	}
}

// One message, printed by mosquitto_sub and by us in many formats: the same
// bytes. What differs on purpose is not in the list: widths of %x (mosquitto
// 2.0.11 cuts the value), and -N after %j.
func TestSubFormatsLikeMosquitto(t *testing.T) {
	theirs := program(t, "mosquitto_sub", "mosquitto-clients")
	port := startMosquitto(t)
	formats := []string{
		"%t", "%10t", "%-10t|", "%.2t", "%-5.2t|", "%p", "%8p|", "%-8p|", "%l", "%5l", "%-5l|", "%05l", "%q", "%r", "%m",
		"%x", "%X", "%C", "%12C|", "%.4C", "%D", "%E", "%06E", "%F", "%P", "%R", "%S|", "%A|", "%%", "@@", `\\`, `\t|\0|\e|\a|\v|\r|\n|`,
		"@Y-@m-@d", "@j @U @W @V @G @g @u @w @C @y @a @A @b @B @h @D @F @x", "plain", "",
	}
	format := strings.Join(formats, "~")
	payloads := []string{"hello", "", "a b", "€"}
	session := []string{"-p", port, "-c", "-q", "1", "-V", "5", "-t", "a/#", "-W", "10"}
	ids := [2]string{"theirs", "ours"}
	for _, id := range ids {
		if out, err := exec.Command(theirs, append(session, "-i", id, "-E")...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for _, p := range payloads {
		got := bellwire(t, "", "pub", "-p", port, "-t", "a/b", "-q", "1", "-m", p,
			"-D", "publish", "content-type", "text/plain", "-D", "publish", "user-property", "a", "b",
			"-D", "publish", "user-property", "a", "c", "-D", "publish", "response-topic", "r/t",
			"-D", "publish", "correlation-data", "cd", "-D", "publish", "payload-format-indicator", "1",
			"-D", "publish", "message-expiry-interval", "3600")
		if got.code != 0 {
			t.Fatalf("%+v", got)
		}
	}
	n := strconv.Itoa(len(payloads))
	want, err := exec.Command(theirs, append(session, "-i", ids[0], "-C", n, "-F", format)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	got := bellwire(t, "", append([]string{"sub"}, append(session, "-i", ids[1], "-C", n, "-F", format)...)...)
	if got.code != 0 {
		t.Fatalf("%+v", got)
	}
	ours, their := strings.Split(got.stdout, "~"), strings.Split(string(want), "~")
	if len(ours) != len(their) {
		t.Fatalf("%d fields, mosquitto_sub prints %d\n%q\n%q", len(ours), len(their), got.stdout, want)
	}
	for i := range ours {
		if ours[i] != their[i] {
			t.Errorf("field %d of %q: got %q, mosquitto_sub prints %q", i%(len(formats)-1), format, ours[i], their[i])
		}
	}
}

// %j and %J of mosquitto_sub and ours are the same JSON.
func TestSubJSONLikeMosquitto(t *testing.T) {
	theirs := program(t, "mosquitto_sub", "mosquitto-clients")
	port := startMosquitto(t)
	session := []string{"-p", port, "-c", "-q", "2", "-V", "5", "-t", "a/#", "-W", "10", "-C", "2", "-F"}
	for _, id := range []string{"j1", "j2", "J1", "J2"} {
		if got := bellwire(t, "", "sub", "-p", port, "-c", "-i", id, "-q", "2", "-t", "a/#", "-E"); got.code != 0 {
			t.Fatalf("%+v", got)
		}
	}
	for _, payload := range []string{`{"a": [1, "x<y", null]}`, `17`} {
		bellwire(t, "", "pub", "-p", port, "-t", "a/\"b", "-q", "2", "-m", payload, "-D", "publish", "user-property", "who", "ana")
	}
	for _, f := range []string{"j", "J"} {
		want, err := exec.Command(theirs, append(session, "%"+f, "-i", f+"1")...).Output()
		if err != nil {
			t.Fatal(err)
		}
		got := bellwire(t, "", append([]string{"sub"}, append(session, "%"+f, "-i", f+"2")...)...)
		if a, b := withoutTime(t, got.stdout), withoutTime(t, string(want)); a != b {
			t.Errorf("%%%s: got\n%s\nmosquitto_sub prints\n%s", f, a, b)
		}
	}
}

// withoutTime reads a stream of JSON objects and prints it in one form.
func withoutTime(t *testing.T, stream string) string {
	t.Helper()
	var all []map[string]any
	for d := json.NewDecoder(strings.NewReader(stream)); d.More(); {
		var o map[string]any
		if err := d.Decode(&o); err != nil {
			t.Fatalf("%v in %s", err, stream)
		}
		if _, err := time.Parse("2006-01-02T15:04:05.000000Z-0700", fmt.Sprint(o["tst"])); err != nil {
			t.Errorf("tst: %v", err)
		}
		delete(o, "tst")
		all = append(all, o)
	}
	text, _ := json.MarshalIndent(all, "", " ")
	return string(text)
}

// -o jsonl is valid for every payload, keeps numbers as they were written, and
// its fields do not change their names.
func TestJSONLines(t *testing.T) {
	at := time.Date(2026, 3, 29, 1, 59, 0, 123, time.UTC)
	for _, c := range []struct{ payload, want string }{
		{"21.50", `"json":21.50`},
		{`{"a": "<&>", "a": 1}`, `"json":{"a":"<&>","a":1}`},
		{"line\ntwo \"q\"", `"payload":"line\ntwo \"q\""`},
		{"", `"payload":""`},
		{"\xff\x00", `"payload_b64":"/wA="`},
		{"\"\xff\"", `"payload_b64":"Iv8i"`},
		{"12345678901234567890123", `"json":12345678901234567890123`},
	} {
		var b bytes.Buffer
		m := &paho.Publish{Topic: `a/"b<`, QoS: 1, Retain: true, Payload: []byte(c.payload), Properties: &paho.PublishProperties{}}
		if err := jsonLine(&b, m, at); err != nil {
			t.Fatal(err)
		}
		want := `{"time":"2026-03-29T01:59:00.000000123Z","topic":"a/\"b<","qos":1,"retain":true,` + c.want + `}`
		if b.String() != want {
			t.Errorf("%q:\ngot  %s\nwant %s", c.payload, &b, want)
		}
		if !json.Valid(b.Bytes()) || bytes.ContainsRune(b.Bytes(), '\n') {
			t.Errorf("%q: not one line of JSON: %s", c.payload, &b)
		}
	}
}

func FuzzJSONLine(f *testing.F) {
	f.Add("a/b", []byte(`{"x":1}`), "k", "v", []byte("c"))
	f.Add("\xff", []byte("\xff"), "\xff", "\x00", []byte("\xff"))
	f.Fuzz(func(t *testing.T, topic string, payload []byte, key, value string, correlation []byte) {
		m := &paho.Publish{Topic: topic, Payload: payload, Properties: &paho.PublishProperties{CorrelationData: correlation}}
		m.Properties.User.Add(key, value)
		var b bytes.Buffer
		if err := jsonLine(&b, m, time.Unix(0, 0)); err != nil {
			t.Fatal(err)
		}
		if !json.Valid(b.Bytes()) || bytes.ContainsAny(b.Bytes(), "\n") {
			t.Errorf("not one line of JSON: %q", &b)
		}
	})
}

// Formats from anywhere are refused or work; they never panic.
func FuzzFormat(f *testing.F) {
	for _, s := range []string{"%t", "%-010.5p", "@Y@N", `\e[0m`, "%%%", "%j%J", "@", `\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		format, err := parseFormat(s, len(s)%2 == 0)
		if err != nil {
			return
		}
		var b bytes.Buffer
		m := &paho.Publish{Topic: "a", Payload: []byte("1"), Properties: &paho.PublishProperties{}}
		if err := format(&b, m, time.Unix(0, 0)); err != nil {
			t.Error(err)
		}
	})
}

// Our strftime and the one of the C library agree, asked through date(1).
func TestStrftimeLikeC(t *testing.T) {
	date := program(t, "date", "coreutils")
	const conversions = "aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYz"
	for _, at := range []time.Time{
		time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 1, 3, 12, 5, 9, 0, time.UTC),
		time.Date(2024, 12, 30, 23, 59, 59, 0, time.UTC), time.Date(2000, 2, 29, 11, 0, 0, 0, time.UTC),
		time.Date(2021, 1, 3, 13, 0, 0, 0, time.UTC), time.Date(2028, 12, 31, 1, 2, 3, 0, time.UTC),
	} {
		var format, want strings.Builder
		for _, c := range []byte(conversions) {
			fmt.Fprintf(&format, "%%%c|", c)
			text, ok := strftime(at, c)
			if !ok {
				t.Fatalf("%%%c is unknown", c)
			}
			want.WriteString(text + "|")
		}
		cmd := exec.Command(date, "-u", "-d", "@"+strconv.FormatInt(at.Unix(), 10), "+"+format.String())
		cmd.Env = []string{"LC_ALL=C"}
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSuffix(string(out), "\n"); got != want.String() {
			t.Errorf("%s:\nours   %q\ndate's %q", at, want.String(), got)
		}
	}
}
