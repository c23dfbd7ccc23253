package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The examples of mosquitto_pub's manual page do what it says, with our
// program in the place of theirs.
func TestPubManPageExamples(t *testing.T) { eachBroker(t, checkPubManPageExamples) }

func checkPubManPageExamples(t *testing.T, port string) {
	data := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(data, []byte("two\nlines\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	all := startSub(t, "-p", port, "-t", "#", "-q", "2", "--retain-as-published", "-F", "%t %q %r %p")
	for _, c := range []struct {
		args  []string
		stdin string
		want  []string // topic, QoS, retained as published, payload; by line
	}{
		{[]string{"-t", "sensors/temperature", "-m", "32", "-q", "1"}, "", []string{"sensors/temperature 1 0 32"}},
		{[]string{"-h", "127.0.0.1", "-t", "sensors/temperature", "-m", "1266193804 32"}, "", []string{"sensors/temperature 0 0 1266193804 32"}},
		{[]string{"-r", "-t", "switches/kitchen_lights/status", "-m", "on"}, "", []string{"switches/kitchen_lights/status 0 1 on"}},
		{[]string{"-t", "my/topic", "-f", data}, "", []string{"my/topic 0 0 two", "lines", ""}},
		{[]string{"-t", "my/topic", "-s"}, "two\nlines\n", []string{"my/topic 0 0 two", "lines", ""}},
		{[]string{"-t", "sensors/cc128", "-l"}, "17\n\n18", []string{"sensors/cc128 0 0 17", "sensors/cc128 0 0 ", "sensors/cc128 0 0 18"}},
		{[]string{"-n", "-r", "-t", "switches/kitchen_lights/status"}, "", []string{"switches/kitchen_lights/status 0 1 "}},
		{[]string{"-t", "a", "-m", "x", "--repeat", "3", "--repeat-delay", "0.01", "-q", "2"}, "", []string{"a 2 0 x", "a 2 0 x", "a 2 0 x"}},
		{[]string{"-t", "a", "-m", "-D", "-q", "1"}, "", []string{"a 1 0 -D"}},
	} {
		got := bellwire(t, c.stdin, append([]string{"pub", "-p", port}, c.args...)...)
		if got.code != 0 || got.stdout != "" || got.stderr != "" {
			t.Errorf("pub %q: %+v", c.args, got)
			continue
		}
		want := strings.Join(c.want, "\n") + "\n"
		if got := all.next(t, len(c.want)); got != want {
			t.Errorf("pub %q: arrived %q, want %q", c.args, got, want)
		}
	}
}

// A URL says host, port, user and topic at once.
func TestPubURL(t *testing.T) { eachBroker(t, checkPubURL) }

func checkPubURL(t *testing.T, port string) {
	all := startSub(t, "-p", port, "-t", "#", "-v")
	got := bellwire(t, "", "pub", "-L", "mqtt://ana:secret@127.0.0.1:"+port+"/home/kitchen/temp", "-m", "21.5", "-q", "1")
	if got.code != 0 {
		t.Fatalf("%+v", got)
	}
	if got, want := all.next(t, 1), "home/kitchen/temp 21.5\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Properties given with -D arrive.
func TestPubProperties(t *testing.T) { eachBroker(t, checkPubProperties) }

func checkPubProperties(t *testing.T, port string) {
	all := startSub(t, "-p", port, "-t", "#", "-F", "%C|%P|%R|%D|%F")
	got := bellwire(t, "", "pub", "-p", port, "-t", "a", "-m", "x", "-q", "1",
		"-D", "publish", "content-type", "text/plain", "-D", "PUBLISH", "user-property", "who", "ana b",
		"-D", "publish", "user-property", "who", "bo", "-D", "publish", "response-topic", "re/ply",
		"-D", "publish", "correlation-data", "c0", "-D", "publish", "payload-format-indicator", "1")
	if got.code != 0 {
		t.Fatalf("%+v", got)
	}
	if got, want := all.next(t, 1), "text/plain|who:ana b who:bo|re/ply|c0|1\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A command line that cannot work opens no connection and says what is wrong.
func TestPubUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"-m", "x"}, 2, "no topic to publish to\n  add -t TOPIC "},
		{[]string{"-t", "a"}, 2, "no message\n  add one of -m MESSAGE"},
		{[]string{"-t", "a", "-m", "x", "-n"}, 2, "only one of -m, -f, -l, -n and -s"},
		{[]string{"-t", "a/+", "-m", "x"}, 2, `-t "a/+" cannot be published to: `},
		{[]string{"-t", "a", "-m", "x", "-q", "3"}, 2, "--qos 3 is not 0, 1 or 2"},
		{[]string{"-t", "a", "-m", "x", "-q", "one"}, 2, `"one" is no value for -q, --qos`},
		{[]string{"-t", "a", "-m", "x", "-V", "mqttv311"}, 2, "-V mqttv311: only MQTT 5 is spoken here"},
		{[]string{"-t", "a", "-m", "x", "-V", "311"}, 2, "BW-3001"},
		{[]string{"-t", "a", "-m", "x", "-V", "7"}, 2, `-V "7" is no version of MQTT`},
		{[]string{"-t", "a", "-m", "x", "-c"}, 2, "needs a client id\n  add --id NAME"},
		{[]string{"-t", "a", "-m", "x", "-x", "∞"}, 2, "needs a client id"},
		{[]string{"-t", "a", "-m", "x", "-x", "soon"}, 2, `-x "soon": want 0 to 4294967295 seconds`},
		{[]string{"-t", "a", "-m", "x", "-i", "a", "-I", "b"}, 2, "--id and --id-prefix exclude each other"},
		{[]string{"-t", "a", "-m", "x", "--will-payload", "x"}, 2, "a will needs --will-topic"},
		{[]string{"-t", "a", "-m", "x", "--repeat", "0"}, 2, "--repeat 0"},
		{[]string{"-t", "a", "-l", "--repeat", "2"}, 2, "not with -l"},
		{[]string{"-t", "a", "-m", "x", "--repeat-delay", "-1"}, 2, "--repeat-delay -1"},
		{[]string{"-t", "a", "-f", "/does/not/exist"}, 1, "cannot read the message: open /does/not/exist"},
		{[]string{"-t", "a", "-m", "x", "-L", "http://x/y"}, 2, "want mqtt://"},
		{[]string{"-m", "x", "-L", "mqtt://h/y", "-p", "1"}, 2, "goes without --host"},
		{[]string{"-t", "a", "-m", "x", "--cafile", "/does/not/exist"}, 2, "certificates to trust"},
		{[]string{"-t", "a", "-m", "x", "--cert", "c"}, 2, "--cert and --key go together"},
		{[]string{"-t", "a", "-m", "x", "--psk", "12"}, 2, "mosquitto's --psk is not supported: TLS with pre-shared keys"},
		{[]string{"-t", "a", "-m", "x", "-S"}, 2, "mosquitto's -S, --srv is not supported"},
		{[]string{"-t", "a", "-m", "x", "-D", "publish", "flavour", "1"}, 2, `publish has no property "flavour"`},
		{[]string{"-t", "a", "-m", "x", "-D", "subscribe", "user-property", "a", "b"}, 2, `"subscribe" cannot be set here`},
		{[]string{"-t", "a", "-m", "x", "-D", "connect", "receive-maximum", "70000"}, 2, "receive-maximum is a number from 0 to 65535"},
		{[]string{"-t", "a", "-m", "x", "-D", "publish", "content-type"}, 2, "want a command, a property and a value"},
		{[]string{"-t", "a", "-m", "x", "--mesage", "y"}, 2, "unknown flag --mesage\n  did you mean --message?"},
		{[]string{"-t", "a", "-m", "x", "y"}, 2, `takes no argument, got "y"`},
		{[]string{"-t"}, 2, "-t, --topic needs a value"},
		{[]string{"-t", "a", "-m", "x", "-h", "127.0.0.1", "-p", "1"}, 5, "cannot connect to mqtt://127.0.0.1:1: connection refused (tried 127.0.0.1:1)\n  is the server up"},
	} {
		got := bellwire(t, "", append([]string{"pub"}, c.args...)...)
		if got.code != c.code || !strings.Contains(got.stderr, c.want) || got.stdout != "" {
			t.Errorf("pub %q: exit %d, stdout %q, stderr %q; want exit %d and %q", c.args, got.code, got.stdout, got.stderr, c.code, c.want)
		}
		if !strings.HasPrefix(got.stderr, "bellwire: ") || strings.Count(got.stderr, "\n") != 2 || !strings.Contains(got.stderr, "     BW-") {
			t.Errorf("pub %q: %q has not the shape of an error", c.args, got.stderr)
		}
	}
}

// --quiet leaves the exit code and takes the message, but not for a command
// line that is wrong.
func TestQuiet(t *testing.T) {
	got := bellwire(t, "", "pub", "-h", "127.0.0.1", "-p", "1", "-t", "a", "-m", "x", "--quiet")
	if want := (ran{code: exitUnreachable}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	got = bellwire(t, "", "pub", "--quiet", "-m", "x")
	if got.code != exitUsage || got.stderr == "" {
		t.Errorf("got %+v, want a message about the missing topic", got)
	}
}

// A flag's twin in the environment is read, and named when it is wrong.
func TestFlagTwins(t *testing.T) {
	t.Setenv("BELLWIRE_HOST", "127.0.0.1")
	t.Setenv("BELLWIRE_PORT", "1")
	if got := bellwire(t, "", "pub", "-t", "a", "-m", "x"); !strings.Contains(got.stderr, "mqtt://127.0.0.1:1:") {
		t.Errorf("got %+v, want the host and port of the environment", got)
	}
	t.Setenv("BELLWIRE_PORT", "many")
	got := bellwire(t, "", "pub", "-t", "a", "-m", "x")
	if got.code != exitUsage || !strings.Contains(got.stderr, `BELLWIRE_PORT="many" is no value for --port`) {
		t.Errorf("got %+v", got)
	}
}

// Where the server is comes from the command line or from the environment, and
// not from both.
func TestURLAndEnvironment(t *testing.T) {
	port := startDev(t)
	url := "mqtt://127.0.0.1:" + port
	t.Setenv("BELLWIRE_HOST", "192.0.2.1")
	t.Setenv("BELLWIRE_PORT", "1")
	if got := bellwire(t, "", "pub", "-L", url+"/a", "-q", "1", "-m", "x"); got != (ran{}) {
		t.Errorf("a URL beside BELLWIRE_PORT: %+v", got)
	}
	t.Setenv("BELLWIRE_URL", "mqtt://192.0.2.1:1/a")
	if got := bellwire(t, "", "pub", "-h", "127.0.0.1", "-p", port, "-t", "a", "-q", "1", "-m", "x"); got != (ran{}) {
		t.Errorf("a port beside BELLWIRE_URL: %+v", got)
	}
}
