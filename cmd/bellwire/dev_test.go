package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"
)

// dev --demo ends by itself with exit code 0, and its first line is for
// programs when its output is no terminal.
func TestDevDemoEnds(t *testing.T) {
	t.Parallel()
	got := bellwire(t, "", "dev", "--demo", "--for", "1s", "--port", "0")
	if got.code != 0 || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	first, rest, _ := strings.Cut(got.stdout, "\n")
	if !regexp.MustCompile(`^\{"ready":true,"node":"dev","pid":\d+,"mqtt":"127\.0\.0\.1:\d+"\}$`).MatchString(first) {
		t.Errorf("the first line is %q", first)
	}
	if !strings.Contains(rest, "delivered ") || !strings.Contains(rest, "withheld by policy") {
		t.Errorf("no demo in %q", rest)
	}
}

// In dev a user name is that principal, with any password or none, and who
// gives no name is welcome too. Our clients, mosquitto's and a mix of them
// understand each other.
func TestDevLetsEverybodyIn(t *testing.T) {
	noLeaks(t)
	port := startDev(t)
	all := startSub(t, "-p", port, "-t", "home/#", "-v", "-u", "ana", "-P", "whatever")
	for i, args := range [][]string{nil, {"-u", "bob"}, {"-u", "bob@example.org", "-P", "x"}} {
		args = append(args, "pub", "-p", port, "-q", "1", "-t", "home/"+strconv.Itoa(i), "-m", "hello")
		got := bellwire(t, "", append(args[len(args)-9:], args[:len(args)-9]...)...)
		if got.code != 0 {
			t.Errorf("%q: %+v", args, got)
		}
	}
	if got, want := all.next(t, 3), "home/0 hello\nhome/1 hello\nhome/2 hello\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := bellwire(t, "", "pub", "-p", port, "-t", "a", "-m", "x", "-u", "not an address"); got.code != exitDenied {
		t.Errorf("a name that is none: %+v", got)
	}
	all.cancel() // Ctrl-C
	if got := <-all.ended; got.code != exitInterrupted {
		t.Errorf("an interrupted sub: exit %d, want %d", got.code, exitInterrupted)
	}
}

// What our own server's policy refuses is told with its reason: to a
// publisher, to a subscriber, and to one with a wrong password.
func TestDeniedByPolicy(t *testing.T) {
	port := startDev(t, "--demo")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"pub", "-u", "night", "-t", "hosts/x/load", "-m", "1", "-q", "1"}, "publish to hosts/x/load refused: "},
		{[]string{"pub", "-u", "night", "-t", "hosts/x/load", "-m", "1", "-q", "2"}, "publish to hosts/x/load refused: "},
		{[]string{"sub", "-u", "visitor", "-t", "hosts/#"}, "subscribe to hosts/# refused: "},
		{[]string{"pub", "-u", "night", "-P", "guess", "-t", "hosts/x/load", "-m", "1"}, "check -u and -P"},
	} {
		got := bellwire(t, "", append(c.args, "-p", port)...)
		if got.code != exitDenied || !strings.Contains(got.stderr, c.want) || !strings.Contains(got.stderr, "     BW-4") {
			t.Errorf("%q: %+v, want exit 4 and %q", c.args, got, c.want)
		}
	}
	if got := bellwire(t, "", "sub", "-u", "night", "-t", "hosts/+/load", "-E", "-p", port); got != (ran{}) {
		t.Errorf("what is allowed at times: %+v", got)
	}
}

// A port that is taken: who has it, and what to do.
func TestDevPortTaken(t *testing.T) {
	noLeaks(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	got := bellwire(t, "", "dev", "--port", strconv.Itoa(port))
	want := fmt.Sprintf("bellwire: port %d on 127.0.0.1 is taken by bellwire.test (pid %d)\n  end it, or take another port: bellwire dev --port %d, or --port 0 for any     BW-2013\n",
		port, os.Getpid(), port%65535+1)
	if got.code != exitFailed || got.stderr != want || got.stdout != "" {
		t.Errorf("got %+v, want %q", got, want)
	}
}

func TestListeners(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:075B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 31337 1 0000000000000000 100 0 0 10 0
   1: 0100007F:075B 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 31338 1 0000000000000000 20 4 30 10 -1
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0
`
	for _, c := range []struct{ at, want string }{
		{"127.0.0.1:1883", "31337"}, // the listener, and not the connection
		{"0.0.0.0:1883", "31337"},
		{"127.0.0.2:1883", ""},
		{"127.0.0.1:22", "4711"},
		{"127.0.0.1:80", ""},
	} {
		if got := strings.Join(listeners(table, netip.MustParseAddrPort(c.at)), " "); got != c.want {
			t.Errorf("%s: got %q, want %q", c.at, got, c.want)
		}
	}
}

// A host's rates are differences of /proc's counters, of whole disks and of
// interfaces that lead elsewhere.
func TestHostReadings(t *testing.T) {
	proc := func(sectors, octets string) fstest.MapFS {
		return fstest.MapFS{
			"loadavg": {Data: []byte("0.42 0.30 0.20 1/123 4567\n")},
			"meminfo": {Data: []byte("MemTotal:       1000 kB\nMemFree:  100 kB\nMemAvailable:    250 kB\n")},
			"diskstats": {Data: []byte("   8       0 sda 1 0 " + sectors + " 0 5 0 20 0 0 0 0\n   8       1 sda1 1 0 " + sectors + " 0 5 0 20 0 0 0 0\n" +
				"   7       0 loop0 1 0 99 0 5 0 99 0 0 0 0\n")},
			"net/dev": {Data: []byte("Inter-|   Receive   |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes\n" +
				"    lo: 999 1 0 0 0 0 0 0 999 1 0 0 0 0 0 0\n  eth0:" + octets + " 1 0 0 0 0 0 0 2000 1 0 0 0 0 0 0\n")},
		}
	}
	blocks := fstest.MapFS{"sda/size": {}, "loop0/size": {}}
	start := time.Unix(1000, 0)
	before, err := readHost(proc("10", "1000"), blocks, start)
	if err != nil {
		t.Fatal(err)
	}
	after, err := readHost(proc("14", "5000"), blocks, start.Add(2*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	want := `[{load 0.42} {memory 75.0} {disk {"read":1024,"written":0}} {net {"in":2000,"out":0}}]`
	if got := fmt.Sprint(after.since(before)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := readHost(proc("many", "1"), blocks, start); err == nil || !strings.Contains(err.Error(), "/proc/diskstats: ") {
		t.Errorf("got %v, want a fault that names the file", err)
	}
}

// This machine can be read, where there is a /proc.
func TestThisHost(t *testing.T) {
	if _, err := os.Stat("/proc/loadavg"); err != nil {
		t.Skipf("missing: /proc, a Linux machine")
	}
	s, err := readHost(os.DirFS("/proc"), os.DirFS("/sys/block"), time.Now())
	if err != nil || s.memoryTotal == 0 || s.memoryAvailable == 0 || s.memoryAvailable > s.memoryTotal {
		t.Errorf("got %+v, %v", s, err)
	}
}

// Payloads are shown on one line, printable, and not too long.
func TestShown(t *testing.T) {
	for payload, want := range map[string]string{
		"":                            "(null)",
		"21.5":                        "21.5",
		"grüße":                       "grüße",
		"a\tb\n":                      `"a\tb\n"`,
		"\x1b[2J":                     `"\x1b[2J"`,
		"\xff\x00":                    "ff00",
		strings.Repeat("x", 70):       strings.Repeat("x", 60) + "… (70 bytes)",
		"x" + strings.Repeat("ü", 40): "x" + strings.Repeat("ü", 29) + "… (81 bytes)",
	} {
		if got := shown([]byte(payload)); got != want {
			t.Errorf("%q: got %q, want %q", payload, got, want)
		}
	}
}

// A terminal that is slower than the broker misses lines and is told how many;
// nobody waits for it.
func TestFeedMissesLines(t *testing.T) {
	w := &gatedWriter{open: make(chan struct{}), first: make(chan struct{})}
	f := newFeed(w)
	f.print("first")
	<-w.first // it is being written, and the queue is empty
	for range feedAhead + 7 {
		f.print("line")
	}
	close(w.open)
	f.end("last")
	f.print("after the end")
	if got := strings.Count(w.text.String(), "line\n"); got != feedAhead {
		t.Errorf("%d lines printed, want the %d that there was room for", got, feedAhead)
	}
	if got := w.text.String(); !strings.HasSuffix(got, "line\n… 7 lines not shown\nlast\n") {
		t.Errorf("it ends with %q", got[len(got)-50:])
	}
}

// A gatedWriter blocks in its first Write until it is opened.
type gatedWriter struct {
	open, first chan struct{}
	once        sync.Once
	text        strings.Builder
}

func (w *gatedWriter) Write(p []byte) (int, error) {
	w.once.Do(func() { close(w.first) })
	<-w.open
	return w.text.Write(p)
}
