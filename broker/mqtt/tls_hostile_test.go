package mqtt

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// A records is a client of TLS with AES-128-GCM and SHA-256 that writes whatever records it
// likes: a tls.Conn does its handshake, and is left then.
type records struct {
	t       *testing.T
	conn    net.Conn
	version uint16
	secret  []byte // of TLS 1.3: the client's
	aead    cipher.AEAD
	iv      []byte
	seq     uint64
	out     bytes.Buffer // records to be written
}

// Types of records.
const (
	recordChange    = 20
	recordAlert     = 21
	recordHandshake = 22
	recordData      = 23
)

func openRecords(t *testing.T, conn net.Conn, version uint16) *records {
	t.Helper()
	var keys, hello bytes.Buffer
	c := tls.Client(recorded{conn, &hello}, &tls.Config{
		RootCAs: testIdentity().pool, ServerName: "localhost", MinVersion: version, MaxVersion: version, KeyLogWriter: &keys,
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}, // of TLS 1.2
	})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	r := &records{t: t, conn: conn, version: version}
	for line := range strings.Lines(keys.String()) {
		word := strings.Fields(line)
		switch word[0] {
		case "CLIENT_TRAFFIC_SECRET_0":
			if got := c.ConnectionState().CipherSuite; got != tls.TLS_AES_128_GCM_SHA256 {
				t.Skipf("without AES in hardware TLS 1.3 takes %s", tls.CipherSuiteName(got))
			}
			r.use(unhex(t, word[2]))
		case "CLIENT_RANDOM": // RFC 5246 6.3: the client's key, the server's, the client's part of nonces
			const random = 5 + 4 + 2 // where the server's is in its first record
			seed := slices.Concat([]byte("key expansion"), hello.Bytes()[random:random+32], unhex(t, word[1]))
			block := expand12(unhex(t, word[2]), seed, 16+16+4)
			r.aead, r.iv, r.seq = gcm(t, block[:16]), block[32:], 1 // after Finished
		}
	}
	return r
}

// A recorded is a Conn of which all that is read is kept; without one, what is written.
type recorded struct {
	net.Conn
	kept *bytes.Buffer
}

func (r recorded) Read(p []byte) (int, error) {
	if r.Conn == nil {
		return 0, io.EOF
	}
	n, err := r.Conn.Read(p)
	r.kept.Write(p[:n])
	return n, err
}

func (r recorded) Write(p []byte) (int, error) {
	if r.Conn == nil {
		return r.kept.Write(p)
	}
	return r.Conn.Write(p)
}

func unhex(t *testing.T, s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func gcm(t *testing.T, key []byte) cipher.AEAD {
	c, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	a, err := cipher.NewGCM(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// expand12 is P_SHA256 of RFC 5246 5.
func expand12(secret, seed []byte, n int) (out []byte) {
	sum := func(b ...[]byte) []byte {
		h := hmac.New(sha256.New, secret)
		h.Write(bytes.Join(b, nil))
		return h.Sum(nil)
	}
	for a := sum(seed); len(out) < n; a = sum(a) {
		out = append(out, sum(a, seed)...)
	}
	return out[:n]
}

// expand13 is HKDF-Expand-Label of RFC 8446 7.1.
func expand13(t *testing.T, secret []byte, label string, n int) []byte {
	label = "tls13 " + label
	info := append([]byte{0, byte(n), byte(len(label))}, label...)
	out, err := hkdf.Expand(sha256.New, secret, string(append(info, 0)), n)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (r *records) use(secret []byte) {
	r.secret, r.aead, r.iv, r.seq = secret, gcm(r.t, expand13(r.t, secret, "key", 16)), expand13(r.t, secret, "iv", 12), 0
}

// add adds a record with data to what is written by send.
func (r *records) add(kind byte, data ...byte) {
	if r.version == tls.VersionTLS12 {
		r.add12(kind, data)
		return
	}
	nonce := bytes.Clone(r.iv)
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^r.seq)
	inner := append(bytes.Clone(data), kind)
	head := []byte{recordData, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(head[3:], uint16(len(inner)+r.aead.Overhead()))
	r.out.Write(r.aead.Seal(head, nonce, inner, head))
	r.seq++
}

func (r *records) add12(kind byte, data []byte) {
	seq := binary.BigEndian.AppendUint64(nil, r.seq)
	also := append(bytes.Clone(seq), kind, 3, 3, byte(len(data)>>8), byte(len(data)))
	sealed := r.aead.Seal(nil, append(bytes.Clone(r.iv), seq...), data, also)
	r.out.Write([]byte{kind, 3, 3})
	_ = binary.Write(&r.out, binary.BigEndian, uint16(len(seq)+len(sealed)))
	r.out.Write(append(seq, sealed...))
	r.seq++
}

// update adds a KeyUpdate, which may ask for one, and goes on with new keys.
func (r *records) update(request byte) {
	r.add(recordHandshake, 24, 0, 0, 1, request)
	r.use(expand13(r.t, r.secret, "traffic upd", 32))
}

// send writes what was added; the connection may have ended meanwhile.
func (r *records) send() {
	r.conn.SetWriteDeadline(deadline())
	_, _ = r.out.WriteTo(r.conn)
}

// split adds a packet, each of its bytes in a record.
func (r *records) split(packet []byte) {
	for _, b := range packet {
		r.add(recordData, b)
	}
}

// hostileTLS are what ends a connection that has done its handshake.
var hostileTLS = []struct {
	name    string
	version uint16
	do      func(*records)
}{
	{"new keys, again and again", tls.VersionTLS13, func(r *records) {
		for range 1000 {
			r.update(0)
		}
	}},
	{"new keys for both, again and again", tls.VersionTLS13, func(r *records) {
		for range 1000 {
			r.update(1)
		}
	}},
	{"records with nothing in them", tls.VersionTLS13, func(r *records) {
		for range 1000 {
			r.add(recordData)
		}
	}},
	{"records with nothing in them, TLS 1.2", tls.VersionTLS12, func(r *records) {
		for range 1000 {
			r.add(recordData)
		}
	}},
	{"changes of cipher", tls.VersionTLS13, func(r *records) {
		for range 1000 {
			r.out.Write([]byte{recordChange, 3, 3, 0, 1, 1})
		}
	}},
	{"warnings", tls.VersionTLS12, func(r *records) {
		for range 1000 {
			r.add(recordAlert, 1, 90) // user_canceled
		}
	}},
	{"a ticket, as servers send them", tls.VersionTLS13, func(r *records) {
		r.add(recordHandshake, 4, 0, 0, 14, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 'x', 0, 0)
	}},
	{"a message of 16 MiB to come", tls.VersionTLS13, func(r *records) { r.add(recordHandshake, 24, 0xff, 0xff, 0xff) }},
	{"a message that never ends", tls.VersionTLS13, func(r *records) {
		r.add(recordHandshake, 24, 0, 0xff, 0xff)
		for range 20 {
			r.add(recordHandshake, make([]byte, 4000)...)
		}
	}},
	{"another handshake", tls.VersionTLS12, func(r *records) {
		var hello bytes.Buffer
		_ = tls.Client(recorded{nil, &hello}, &tls.Config{ServerName: "localhost", MaxVersion: tls.VersionTLS12}).Handshake()
		r.add(recordHandshake, hello.Bytes()[5:]...)
	}},
	{"a wish for another handshake", tls.VersionTLS12, func(r *records) { r.add(recordHandshake, 0, 0, 0, 0) }},
	{"a forged record", tls.VersionTLS13, func(r *records) { r.out.Write(append([]byte{recordData, 3, 3, 0, 32}, make([]byte, 32)...)) }},
}

// Who has done its handshake, and has TLS itself do something without end, or breaks it, has its
// connection end after a few records (crypto/tls allows 16 in a row that bring nothing, and
// never a second handshake), and holds up nobody.
func TestTLSHostile(t *testing.T) {
	n := newNode(t, Limits{})
	dial := n.serveWay(way{name: "tls", listen: Listener{TLS: serverTLS()}, dial: func(nc net.Conn) (net.Conn, error) { return nc, nil }})
	neighbour := n.open(func() (net.Conn, error) {
		nc, err := dial()
		if err == nil {
			nc, err = clientTLS(tls.VersionTLS13)(nc)
		}
		return nc, err
	}, "neighbour")
	for _, x := range hostileTLS {
		t.Run(x.name, func(t *testing.T) {
			r := n.openRecords(t, dial, x.version)
			x.do(r)
			r.send()
			neighbour.ping()
			eventually(t, "end", func() bool { return n.srv.stats.Sockets.Load() == 1 })
			neighbour.ping()
		})
	}
}

// openRecords connects a client, and reads and forgets what it is sent.
func (n *node) openRecords(t *testing.T, dial func() (net.Conn, error), version uint16) *records {
	t.Helper()
	nc, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	r := openRecords(t, nc, version)
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = io.Copy(io.Discard, nc)
	}()
	t.Cleanup(func() { nc.Close(); <-over })
	before := n.srv.stats.Clients.Load()
	r.split(connectBytes(4, "hostile"))
	r.send()
	eventually(t, "the client", func() bool { return n.srv.stats.Clients.Load() == before+1 })
	return r
}

// What TLS lets a client do, however dear, costs what it costs for that client alone: records
// of a byte each, and sixteen new keys for both sides between two of them, are taken, and
// others are served meanwhile. (In the log is what it takes of a processor, of both ends.)
func TestTLSDear(t *testing.T) {
	n := newNode(t, Limits{})
	dial := n.serveWay(way{name: "tls", listen: Listener{TLS: serverTLS()}, dial: func(nc net.Conn) (net.Conn, error) { return nc, nil }})
	neighbour := n.connect(5, "neighbour")
	for _, x := range []struct {
		name          string
		version       uint16
		pings, update int
	}{
		{"TLS 1.2, a byte each", tls.VersionTLS12, 2000, 0},
		{"TLS 1.3, a byte each", tls.VersionTLS13, 2000, 0},
		{"new keys between", tls.VersionTLS13, 100, 16},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := n.openRecords(t, dial, x.version)
			took, came := &n.srv.stats.PacketsIn[packets.Pingreq], n.srv.stats.PacketsIn[packets.Pingreq].Load()
			began := processTime(t)
			for range x.pings {
				for _, b := range []byte{0xc0, 0} { // PINGREQ
					for range x.update {
						r.update(1)
					}
					r.add(recordData, b)
				}
			}
			r.send()
			neighbour.ping()
			eventually(t, "all of it", func() bool { return took.Load() == came+uint64(x.pings)+1 })
			records := 2 * x.pings * (1 + x.update)
			t.Logf("%d records: %v of a processor, %v each", records, processTime(t)-began, (processTime(t)-began)/time.Duration(records))
			r.conn.Close()
			eventually(t, "end", func() bool { return n.srv.stats.Sockets.Load() == 1 })
		})
	}
}

// processTime returns how long this process has had a processor.
func processTime(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
