package blackbox

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// A malformation is a line of testdata/malformed, whose README says what it means.
type malformation struct {
	file, what, bytes string
	answers           map[byte]string   // by version, "-" for none
	keeps             map[byte][]string // statements of the standard, by version
}

// malformations reads all lines of all files.
func malformations(t testing.TB) (all []malformation) {
	t.Helper()
	files, err := filepath.Glob("testdata/malformed/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("testdata/malformed: %d files, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for n, line := range strings.Split(string(text), "\n") {
			if line == "" || line[0] == '#' {
				continue
			}
			m, err := readMalformation(line)
			if err != nil {
				t.Fatalf("%s:%d: %v", file, n+1, err)
			}
			m.file = strings.TrimSuffix(filepath.Base(file), ".txt")
			all = append(all, m)
		}
	}
	return all
}

func readMalformation(line string) (m malformation, err error) {
	cells := strings.Split(line, "|")
	if len(cells) != 5 {
		return m, fmt.Errorf("%d columns, want 5", len(cells))
	}
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	m = malformation{what: cells[0], bytes: cells[1], answers: map[byte]string{v5: cells[2], v4: cells[3]}, keeps: map[byte][]string{}}
	if cells[4] == "" {
		return m, nil
	}
	for part := range strings.SplitSeq(cells[4], ";") {
		version, ids, _ := strings.Cut(strings.TrimSpace(part), ":")
		v, ok := map[string]byte{"5": v5, "3.1.1": v4}[version]
		if !ok || m.answers[v] == "-" {
			return m, fmt.Errorf("statements of version %q, for which there is no answer", version)
		}
		m.keeps[v] = strings.Fields(ids)
	}
	return m, nil
}

// A notation reads the bytes of a malformation for one version.
type notation struct {
	rest    string
	version byte
	last    []byte // what *n repeats
}

// encode reads to the end, or to the bracket that closes.
func (n *notation) encode(closing byte) (b []byte, err error) {
	for {
		n.rest = strings.TrimLeft(n.rest, " ")
		if n.rest == "" {
			if closing != 0 {
				return nil, fmt.Errorf("no %c", closing)
			}
			return b, nil
		}
		if closing != 0 && n.rest[0] == closing {
			n.rest = n.rest[1:]
			return b, nil
		}
		next, err := n.token()
		if err != nil {
			return nil, err
		}
		b, n.last = append(b, next...), next
	}
}

func (n *notation) token() ([]byte, error) {
	switch c := n.rest[0]; c {
	case '[', '(':
		n.rest = n.rest[1:]
		inner, err := n.encode(map[byte]byte{'[': ']', '(': ')'}[c])
		if err != nil || c == '(' && n.version < v5 {
			return nil, err
		}
		return mq.Frame(0, inner...)[1:], nil
	case '"', '\'':
		end := strings.IndexByte(n.rest[1:], c) + 2
		text, err := strconv.Unquote(`"` + n.rest[1:max(1, end-1)] + `"`)
		n.rest = n.rest[end:]
		if c == '"' {
			return join([]byte{byte(len(text) >> 8), byte(len(text))}, []byte(text)), err
		}
		return []byte(text), err
	}
	word := n.rest[:strings.IndexAny(n.rest+" ", " ])")]
	n.rest = n.rest[len(word):]
	switch {
	case word == "V":
		return []byte{n.version}, nil
	case word[0] == '*':
		times, err := strconv.Atoi(word[1:])
		return slices.Repeat(n.last, max(0, times-1)), err
	}
	return hex.DecodeString(word)
}

// encode is the packet of a malformation in that version.
func (m malformation) encode(t testing.TB, version byte) mq.Raw {
	t.Helper()
	n := notation{rest: m.bytes, version: version}
	b, err := n.encode(0)
	if err != nil {
		t.Fatalf("%s: %s: %s: %v", m.file, m.what, m.bytes, err)
	}
	return b
}

// play sends the packet, and a PINGREQ behind it, and says what was answered, in the
// words of the table. An answer is waited for, unless that is wanted which needs none:
// it may have to wait for a commit, and PINGRESP does not.
func (m malformation) play(t testing.TB, addr string, version byte, want string) string {
	t.Helper()
	c := mq.Dial(t, addr, version)
	if m.file != "connect" {
		c.Connect(clean(name(t, "client")))
	}
	c.TrySend(m.encode(t, version), mq.Ping)
	var said []string
	alive := false
	for {
		if alive && (len(said) > 0 || want == "goes on") {
			c.Disconnect()
			return strings.Join(append(said, "goes on"), ", ")
		}
		p, err := c.Read(mq.Patience)
		switch {
		case errors.Is(err, mq.ErrClosed) && len(said) == 0:
			return "close"
		case errors.Is(err, mq.ErrClosed):
			return strings.Join(said, ", ")
		case err != nil:
			return strings.Join(append(said, err.Error()), ", ")
		case p.Type == mq.PINGRESP:
			alive = true
		default:
			said = append(said, answered(p))
		}
	}
}

// answered is a packet in the words of the table.
func answered(p *mq.Packet) string {
	switch p.Type {
	case mq.SUBACK, mq.UNSUBACK:
		return strings.TrimSpace(fmt.Sprintf("%v % x", p.Type, p.Codes))
	}
	return fmt.Sprintf("%v %02x", p.Type, p.Code)
}

// wanted says whether got is the answer of the table: after CONNACK and DISCONNECT
// the connection is closed, after another packet it goes on.
func wanted(want, got string) bool {
	for one := range strings.SplitSeq(want, " or ") {
		switch {
		case one == got:
			return true
		case !strings.HasPrefix(one, "CONNACK") && !strings.HasPrefix(one, "DISCONNECT") && one+", goes on" == got:
			return true
		}
	}
	return false
}

// Every malformed packet, and many an odd one, has exactly the answer of its table
// in either version, and ends the connection it came on at most: three healthy
// clients go on through all of them, and nothing of the others is left.
//
// Item 63.
func TestMalformed(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	healthy := newWitnesses(t, s.ready.MQTT)
	for _, m := range malformations(t) {
		for _, v := range []byte{v4, v5} {
			want := m.answers[v]
			if want == "-" {
				continue
			}
			if got := m.play(t, s.ready.MQTT, v, want); !wanted(want, got) {
				t.Errorf("%s: %s, version %d: got %q, want %q: % x", m.file, m.what, v, got, want, m.encode(t, v))
			}
		}
		healthy.check(t, 0, m.file+m.what)
	}
	healthy.check(t, 2, "afterwards")
	until(t, "only the healthy are connected", mq.Patience, func() bool { return s.metric("bellwire_connections") == 3 })
}

// wholePackets are packets as they should be, those of a client that is connected,
// in the notation of the tables. None of their beginnings is a packet, but for those
// of the lengths that are said.
var wholePackets = []struct {
	bytes string
	v4    bool
	also  []int
}{
	{`32 [ "t" 0001 ( 01 01 02 0000000a 03 "c" 08 "r" 09 "d" 26 "k" "v" 23 0001 ) ]`, false, nil},
	{`32 [ "topic" 0001 ]`, true, nil},
	{`40 [ 0001 10 ( 1f "r" 26 "k" "v" ) ]`, false, []int{2, 3}},
	{`50 [ 0001 80 ( 1f "r" 26 "k" "v" ) ]`, false, []int{2, 3}},
	{`62 [ 0001 92 ( 1f "r" 26 "k" "v" ) ]`, false, []int{2, 3}},
	{`70 [ 0001 92 ( 1f "r" 26 "k" "v" ) ]`, false, []int{2, 3}},
	{`40 [ 0001 ]`, true, nil},
	{`50 [ 0001 ]`, true, nil},
	{`62 [ 0001 ]`, true, nil},
	{`70 [ 0001 ]`, true, nil},
	{`82 [ 0001 ( 0b 01 26 "k" "v" ) "t" 01 ]`, false, nil},
	{`82 [ 0001 "t" 01 ]`, true, nil},
	{`a2 [ 0001 ( 26 "k" "v" ) "t" ]`, false, nil},
	{`a2 [ 0001 "t" ]`, true, nil},
	{`e0 [ 04 ( 1f "r" 26 "k" "v" ) ]`, false, []int{0, 1}},
}

// However a packet is cut short, it is malformed or breaks the protocol, and says so.
//
// MQTT 5: 4.13.1-1, 4.13.2-1, 3.14.4-1, 3.14.4-2. MQTT 3.1.1: 4.8.0-1.
func TestMalformedCutAnywhere(t *testing.T) {
	addr := plain(t)
	for _, w := range wholePackets {
		v := byte(v5)
		if w.v4 {
			v = v4
		}
		whole := malformation{bytes: w.bytes}.encode(t, v)
		for n := range len(whole) - 2 {
			if slices.Contains(w.also, n) {
				continue
			}
			m := malformation{file: "cut", bytes: hex.EncodeToString(mq.Frame(whole[0], whole[2:2+n]...))}
			got := m.play(t, addr, v, "")
			if v == v4 && got != "close" || v == v5 && got != "DISCONNECT 81" && got != "DISCONNECT 82" {
				t.Errorf("% x, of % x: got %q", m.encode(t, v), whole, got)
			}
		}
	}
}

// properties5 are all properties, by their numbers, each with a value that is legal.
var properties5 = map[int]string{
	0x01: "01", 0x02: "00000001", 0x03: `"c"`, 0x08: `"r"`, 0x09: `"d"`, 0x0b: "01", 0x11: "00000001", 0x12: `"i"`, 0x13: "0001",
	0x15: `"m"`, 0x16: `"d"`, 0x17: "01", 0x18: "00000001", 0x19: "01", 0x1a: `"i"`, 0x1c: `"s"`, 0x1f: `"r"`, 0x21: "0001", 0x22: "0001",
	0x23: "0001", 0x24: "01", 0x25: "01", 0x26: `"k" "v"`, 0x27: "0000ffff", 0x28: "01", 0x29: "01", 0x2a: "01",
}

// Each property there is, in each packet: where it may not stand it is a protocol
// error, also where only a server may send it, and a number that is none's is
// malformed; where it may stand it may stand once, but for the User Property.
//
// MQTT 5: 4.13.1-1, 2.2.2-1.
func TestMalformedProperties(t *testing.T) {
	addr := plain(t)
	for _, p := range []struct {
		packet string // %s are the properties
		may    []int
		ends   bool // the packet itself ends the connection
	}{
		{`30 [ "t" ( %s ) ]`, []int{0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26}, false},
		{`40 [ 0009 00 ( %s ) ]`, []int{0x1f, 0x26}, false},
		{`50 [ 0009 80 ( %s ) ]`, []int{0x1f, 0x26}, false},
		{`70 [ 0009 00 ( %s ) ]`, []int{0x1f, 0x26}, false},
		{`62 [ 0009 00 ( %s ) ]`, []int{0x1f, 0x26}, false},
		{`82 [ 0001 ( %s ) "t" 00 ]`, []int{0x0b, 0x26}, false},
		{`a2 [ 0001 ( %s ) "t" ]`, []int{0x26}, false},
		{`e0 [ 00 ( %s ) ]`, []int{0x1f, 0x26}, true}, // and 0x11, which here had to be in CONNECT
	} {
		for id := range 0x30 {
			value, known := properties5[id]
			want := "DISCONNECT 81"
			switch {
			case known && p.ends && id == 0x11:
				want = "DISCONNECT 82"
			case slices.Contains(p.may, id):
				want = ""
			case known:
				want = "DISCONNECT 82"
			}
			one := fmt.Sprintf("%02x %s ", id, value)
			for i, props := range []string{one, one + one} {
				want := want
				if i == 1 && want == "" && id != 0x26 {
					want = "DISCONNECT 82" // twice
				}
				m := malformation{bytes: fmt.Sprintf(p.packet, props)}
				got := m.play(t, addr, v5, "goes on")
				legal := strings.HasSuffix(got, "goes on") || p.ends && got == "close"
				if want == "" && !legal || want != "" && got != want {
					t.Errorf("%s: got %q, want %q", m.bytes, got, want)
				}
			}
		}
	}
}

// Each value of the flags of each packet but PUBLISH: all but one are malformed.
//
// MQTT 5: 2.1.3-1, 3.6.1-1, 3.8.1-1, 3.10.1-1, 3.14.1-1, 3.15.1-1.
// MQTT 3.1.1: 2.2.2-1, 2.2.2-2, 3.6.1-1, 3.8.1-1, 3.10.1-1, 3.14.1-1.
func TestMalformedFlags(t *testing.T) {
	addr := plain(t)
	for packet, right := range map[byte]byte{0x40: 0, 0x50: 0, 0x60: 2, 0x70: 0, 0x80: 2, 0xa0: 2, 0xc0: 0, 0xe0: 0, 0xf0: 0} {
		for flags := range byte(16) {
			if flags == right {
				continue
			}
			m := malformation{bytes: fmt.Sprintf(`%02x [ 0001 ( ) "t" 00 ]`, packet|flags)}
			for v, want := range map[byte]string{v4: "close", v5: "DISCONNECT 81"} {
				if got := m.play(t, addr, v, want); got != want {
					t.Errorf("%#02x, version %d: got %q, want %q", packet|flags, v, got, want)
				}
			}
		}
	}
}
