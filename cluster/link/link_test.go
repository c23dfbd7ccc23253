package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const (
	planeTest  Plane = 1
	planeOpen  Plane = 2
	clusterOne       = "cluster one"
)

// An end is a mesh under test, and what it logged.
type end struct {
	*Mesh
	book *Book
	log  *lines
	got  chan *Conn
}

type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newEnd starts a mesh for the node called name, which knows those in members.
// change may change how it is made.
func newEnd(t *testing.T, name string, change func(*Config), members ...Member) *end {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &end{log: new(lines), got: make(chan *Conn, 100), book: NewBook(members, nil)}
	cfg := Config{
		Cluster: clusterOne, Self: Member{ID: "id of " + name, Name: name, Address: listener.Addr().String(), Since: 1},
		Book: e.book, Listener: listener, Now: time.Now, Logger: slog.New(slog.NewTextHandler(e.log, nil)),
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		},
		Admit: func(Member) error { return nil }, Strangers: []Plane{planeOpen},
		Serve: func(c *Conn) {
			for { // an echo
				kind, id, body, err := c.Read()
				if err != nil || c.Write(kind, id, body) != nil {
					return
				}
			}
		},
	}
	if change != nil {
		change(&cfg)
	}
	e.Mesh = New(cfg)
	t.Cleanup(func() {
		if err := e.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return e
}

func (e *end) self() Member { return e.cfg.Self }

// Frames of any size come as they went, in order, in both directions.
func TestFrames(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	a := newEnd(t, "a", nil)
	b := newEnd(t, "b", nil, a.self())
	c, err := b.Dial(t.Context(), a.self().ID, planeTest)
	if err != nil {
		t.Fatal(err)
	}
	if c.Peer != a.self() {
		t.Errorf("at the other end is %+v", c.Peer)
	}
	if _, known := a.book.Find(b.self().ID); !known {
		t.Error("who dials is not learnt of")
	}
	sizes := []int{0, 1, 100, 64 << 10, 1<<20 + 1, 5 << 20}
	go func() {
		for i, size := range sizes {
			half := make([]byte, size/2)
			if err := c.Queue(byte(i), uint64(size), half, make([]byte, size-size/2)); err != nil {
				t.Error(err)
			}
		}
		if err := c.Flush(); err != nil {
			t.Error(err)
		}
	}()
	for i, size := range sizes {
		kind, id, body, err := c.Read()
		if err != nil || int(kind) != i || id != uint64(size) || len(body) != size {
			t.Fatalf("frame %d: kind %d, id %d, %d bytes, %v", i, kind, id, len(body), err)
		}
	}
	if err := c.Write(1, 1, make([]byte, MaxBody+1)); err == nil {
		t.Error("a frame that nobody would read was sent")
	}
	if err := errors.Join(c.Close(), b.Close(), a.Close()); err != nil {
		t.Error(err)
	}
}

// Who does not belong here is told why, and gets no further; others do not notice.
func TestRefusals(t *testing.T) {
	strict := func(c *Config) {
		c.Admit = func(m Member) error {
			if m.Name == "removed" {
				return errors.New("no member, or no longer")
			}
			return nil
		}
	}
	a := newEnd(t, "a", strict)
	foreign := func(c *Config) { c.Cluster = "cluster two" }
	for name, test := range map[string]struct {
		end   *end
		to    string
		plane Plane
		want  Refusal
	}{
		"of another cluster":                 {newEnd(t, "b", foreign), a.self().ID, planeTest, RefusedCluster},
		"of none, on a plane for members":    {newEnd(t, "b", func(c *Config) { c.Cluster = "" }), a.self().ID, planeTest, RefusedCluster},
		"another cluster's on an open plane": {newEnd(t, "b", foreign), a.self().ID, planeOpen, RefusedCluster},
		"looks for another node":             {newEnd(t, "b", nil), "id of c", planeTest, RefusedNode},
		"removed":                            {newEnd(t, "removed", nil), a.self().ID, planeTest, RefusedMember},
		"without an address":                 {newEnd(t, "b", func(c *Config) { c.Self.Address = "" }), a.self().ID, planeTest, RefusedVersion},
	} {
		t.Run(name, func(t *testing.T) {
			there := a.self()
			there.ID, there.Since = test.to, 2
			test.end.book.Learn(there)
			_, err := test.end.Dial(t.Context(), test.to, test.plane)
			r, ok := errors.AsType[*RefusedError](err)
			if !ok || r.Code != test.want || r.Reason == "" || r.By != "a" || !errors.Is(err, ErrRefused) {
				t.Fatalf("%v, want it refused as %s", err, test.want)
			}
			t.Log(err)
		})
	}
	joining := newEnd(t, "new", func(c *Config) { c.Cluster = "" })
	c, cluster, err := joining.DialAddress(t.Context(), a.self().Address, planeOpen)
	if err != nil || cluster != clusterOne {
		t.Fatalf("who wants to join gets %q, %v", cluster, err)
	}
	_ = c.Close()
	if _, known := a.book.Find(joining.self().ID); known {
		t.Error("who is not taken in yet stands in the book")
	}
	// The last is counted when its connection is over, after it has been told.
	for deadline := time.Now().Add(10 * time.Second); a.Refused() < 6 && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	if a.Refused() != 6 {
		t.Errorf("%d refusals are counted, want 6", a.Refused())
	}
}

// What no node says ends the connection and is logged; the next is served.
func TestGarbage(t *testing.T) {
	a := newEnd(t, "a", nil)
	huge := binary.BigEndian.AppendUint32([]byte(preface), maxHello+1)
	array, _ := json.Marshal([]int{1})
	for name, bytes := range map[string][]byte{
		"http":          []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
		"mqtt":          {0x10, 0x0c, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 0},
		"zeros":         make([]byte, 4096),
		"a huge hello":  huge,
		"no JSON":       append(binary.BigEndian.AppendUint32([]byte(preface), 4), "\xff\xff\xff\xff"...),
		"another shape": append(binary.BigEndian.AppendUint32([]byte(preface), uint32(len(array))), array...),
		"cut off":       append(binary.BigEndian.AppendUint32([]byte(preface), 100), "{"...),
	} {
		t.Run(name, func(t *testing.T) {
			nc, err := net.Dial("tcp", a.self().Address)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if _, err := nc.Write(bytes); err != nil {
				t.Fatal(err)
			}
			_ = nc.(*net.TCPConn).CloseWrite()
			if rest, _ := io.ReadAll(nc); len(rest) > 0 && !strings.HasPrefix(string(rest), preface) {
				t.Errorf("it was answered %q", rest)
			}
		})
	}
	b := newEnd(t, "b", nil, a.self())
	c, err := b.Dial(t.Context(), a.self().ID, planeTest)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

// Who is refused again and again does not fill the log: what there was no line for is
// told as a number.
func TestRefusalsAreToldWithinBounds(t *testing.T) {
	now := time.Now()
	a := newEnd(t, "a", func(c *Config) { c.Now = func() time.Time { return now } })
	const more = 50
	for range toldASecond + more {
		nc, err := net.Dial("tcp", a.self().Address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = nc.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		_, _ = io.ReadAll(nc)
		_ = nc.Close()
	}
	if err := a.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if got := strings.Count(a.log.String(), "connection refused"); got != toldASecond {
		t.Errorf("%d lines about %d refusals, want %d", got, toldASecond+more, toldASecond)
	}
	if untold, ok := a.told.Take(now.Add(time.Second)); !ok || untold != more {
		t.Errorf("a second later there is room %v, and %d are untold; want %d", ok, untold, more)
	}
}

// Connections of which nothing is known yet are bounded: the newest loses, and
// when the others are gone there is room again.
func TestStrangersAreBounded(t *testing.T) {
	a := newEnd(t, "a", nil)
	var silent []net.Conn
	for range maxStrangers {
		nc, err := net.Dial("tcp", a.self().Address)
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, nc)
	}
	for a.strangers.Load() < maxStrangers {
		runtime.Gosched() // the accept loop is at it
	}
	late, err := net.Dial("tcp", a.self().Address)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := late.Read(make([]byte, 1)); err == nil {
		t.Errorf("one too many got %d bytes", n)
	}
	for _, nc := range append(silent, late) {
		_ = nc.Close()
	}
	b := newEnd(t, "b", nil, a.self())
	for {
		c, err := b.Dial(t.Context(), a.self().ID, planeTest)
		if err == nil {
			_ = c.Close()
			return
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

// A length is but a claim: no memory is taken for what does not come.
func TestClaimedLength(t *testing.T) {
	frame := binary.BigEndian.AppendUint32(nil, MaxBody)
	frame = append(frame, make([]byte, 100)...)
	allocated := testing.AllocsPerRun(1, func() {
		c := newConn(readOnly{r: bytes.NewReader(frame)}, Member{}, 1)
		if _, _, _, err := c.Read(); err == nil {
			t.Error("half a frame was read")
		}
		_ = c.Close()
	})
	if allocated > 100 {
		t.Errorf("%v allocations", allocated)
	}
	for _, size := range []uint32{0, 1, frameHead - 5, MaxBody + frameHead, 1 << 31} {
		c := newConn(readOnly{r: bytes.NewReader(append(binary.BigEndian.AppendUint32(nil, size), make([]byte, 64)...))}, Member{}, 1)
		if _, _, _, err := c.Read(); err == nil {
			t.Errorf("a frame of %d bytes was read", size)
		}
		_ = c.Close()
	}
}

// readOnly is a connection of which somebody else has written all there is.
type readOnly struct {
	net.Conn
	r io.Reader
}

func (c readOnly) Read(b []byte) (int, error) { return c.r.Read(b) }
func (c readOnly) Close() error               { return nil }

// Of two addresses of one node the later one counts, whoever tells; the book is
// kept when it changes, and only then.
func TestBook(t *testing.T) {
	kept := 0
	var last []Member
	b := NewBook([]Member{{ID: "1", Name: "n1", Address: "a:1", Since: 5}}, func(m []Member) { kept++; last = m })
	b.Learn(Member{ID: "1", Name: "n1", Address: "a:0", Since: 4})
	b.Learn(Member{ID: "1", Name: "n1", Address: "a:1", Since: 5}, Member{ID: "", Address: "x"}, Member{ID: "9"})
	if kept != 0 {
		t.Error("nothing was new, and it was kept")
	}
	b.Learn(Member{ID: "2", Name: "n2", Address: "b:1", Since: 1}, Member{ID: "1", Name: "n1", Address: "a:2", Since: 6})
	if m, _ := b.Find("1"); m.Address != "a:2" || kept != 1 || len(last) != 2 {
		t.Errorf("%+v, kept %d times: %v", m, kept, last)
	}
	for i := range 2 * maxMembers {
		b.Learn(Member{ID: string(rune(1000 + i)), Address: "x", Since: 1})
	}
	if n := len(b.Members()); n != maxMembers {
		t.Errorf("%d members are held, of at most %d", n, maxMembers)
	}
	b.Keep(func(id string) bool { return id == "1" })
	if len(b.Members()) != 1 {
		t.Error("others are still held")
	}
}

// A node that has moved tells the first that it reaches, and is found by all.
func TestMoved(t *testing.T) {
	a := newEnd(t, "a", nil)
	b := newEnd(t, "b", nil, a.self())
	old := Member{ID: "id of c", Name: "c", Address: "127.0.0.1:1", Since: 0}
	a.book.Learn(old)
	b.book.Learn(old)
	c := newEnd(t, "c", nil, a.self())
	for _, from := range []struct{ dialler, to *end }{{c, a}, {b, a}, {b, c}} {
		conn, err := from.dialler.Dial(t.Context(), from.to.self().ID, planeTest)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	}
}

// The name that counts is the certificate's.
func TestNameIsProved(t *testing.T) {
	a := newEnd(t, "a", nil)
	a.cfg.TLS = &TLS{} // judge asks only whether there is one
	h := hello{Version: helloVersion, Cluster: clusterOne, Self: Member{ID: "x", Name: "b", Address: "y"}, Plane: planeTest}
	if code, _ := a.judge(&h, "b"); code != "" {
		t.Errorf("refused: %s", code)
	}
	b := h
	b.Self.ID = a.self().ID // the disk of another, by its own name
	if code, reason := a.judge(&b, "b"); code != RefusedName || !strings.Contains(reason, "\"a\"") {
		t.Errorf("%s, %s", code, reason)
	}
	if code, reason := a.judge(&h, "mallory"); code != RefusedName || !strings.Contains(reason, "mallory") {
		t.Errorf("%s, %s", code, reason)
	}
	if err := a.check(&answer{Version: helloVersion, Cluster: clusterOne, Self: Member{ID: "x", Name: "b"}}, Member{ID: "x"}, "mallory"); err == nil {
		t.Error("somebody with another certificate is believed to be b")
	}
	a.cfg.TLS = nil
}

// Whatever is sent, reading it ends without a panic, and what it takes is bounded.
func FuzzHello(f *testing.F) {
	f.Add([]byte(preface))
	var good bytes.Buffer
	if err := writeMessage(&good, hello{Version: 1, Cluster: "c", Self: Member{ID: "i", Name: "n", Address: "a:1"}}); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		var h hello
		if err := readMessage(bytes.NewReader(b), &h); err != nil {
			return
		}
		m := &Mesh{cfg: Config{Book: NewBook(nil, nil), Self: Member{ID: "me"}, Admit: func(Member) error { return nil }}}
		c := clusterOne
		m.cluster.Store(&c)
		m.judge(&h, "")
	})
}

// Two nodes of which one knows less than is in force at the other do not talk, and
// both sides say which is to be upgraded. Who says nothing knows the first level.
func TestLevels(t *testing.T) {
	for name, c := range map[string]struct {
		dials, answers Levels
		says           string // in the dialler's error; empty: they talk
	}{
		"both old":               {Levels{}, Levels{}, ""},
		"old and new":            {Levels{}, Levels{Knows: 3, InForce: 1}, ""},
		"new and old":            {Levels{Knows: 3, InForce: 1}, Levels{}, ""},
		"not heard of it yet":    {Levels{Knows: 3, InForce: 1}, Levels{Knows: 2, InForce: 2}, ""},
		"old one dials":          {Levels{}, Levels{Knows: 2, InForce: 2}, `node "b" knows feature level 1, and this cluster is at 2: upgrade it`},
		"old one is dialled":     {Levels{Knows: 2, InForce: 2}, Levels{}, `node "b" says that the cluster is at feature level 2, and this node knows 1: upgrade this one`},
		"it is ahead, and dials": {Levels{Knows: 3, InForce: 3}, Levels{Knows: 2, InForce: 2}, `the cluster is at feature level 3, and this node knows 2: upgrade this one`},
	} {
		t.Run(name, func(t *testing.T) {
			a := newEnd(t, "a", func(c2 *Config) { c2.Levels = func() Levels { return c.answers } })
			b := newEnd(t, "b", func(c2 *Config) { c2.Levels = func() Levels { return c.dials } }, a.self())
			dial := map[string]func() (*Conn, error){
				"member": func() (*Conn, error) { return b.Dial(t.Context(), a.self().ID, planeTest) },
			}
			if c.dials.InForce <= 1 { // it may be none yet
				stranger := newEnd(t, "b", func(c2 *Config) {
					c2.Levels, c2.Cluster = func() Levels { return c.dials }, ""
				})
				dial["stranger"] = func() (conn *Conn, err error) {
					conn, _, err = stranger.DialAddress(t.Context(), a.self().Address, planeOpen)
					return conn, err
				}
			}
			for who, dial := range dial {
				conn, err := dial()
				if c.says == "" {
					if err != nil {
						t.Errorf("%s: %v", who, err)
						continue
					}
					conn.Close()
				} else if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%s: %v, want %q", who, err, c.says)
				}
			}
		})
	}
}

// A program from before levels does not look at them, and welcomes whoever dials it:
// then the one who has dialled refuses.
func TestLevelOfAnOldProgram(t *testing.T) {
	b := newEnd(t, "b", func(c *Config) { c.Levels = func() Levels { return Levels{Knows: 2, InForce: 2} } })
	old := &answer{Version: helloVersion, Cluster: clusterOne, Self: Member{ID: "id of a", Name: "a"}}
	want := `node "a" knows feature level 1, and this cluster is at 2: upgrade it`
	if err := b.check(old, Member{ID: "id of a"}, ""); err == nil || err.Error() != want {
		t.Errorf("%v, want %q", err, want)
	}
}
