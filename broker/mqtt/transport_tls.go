package mqtt

import (
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A tlsTransport carries a connection in TLS over another transport.
//
// crypto/tls knows streams that block: a Conn writes until all is written, and reads
// into a buffer that it was given before there was anything to read. Either would
// undo what the transport below is for. So the Conn is put between two ends of ours
// that never wait. It reads ciphertext that has come already, and is told that there
// is nothing when that is used up, by an error that a Conn forgets (a timeout, as of
// a deadline). And what it writes, it writes to memory, which then goes to the socket
// as everything does: as far as the socket takes it, and with nobody's lock held.
//
// What waits there is bounded: so much is encrypted as memory of one block takes, and
// no more before that has gone. Of what was encrypted nothing is told as written
// before its ciphertext is, so the plaintext stays where it counts as output, and all
// bounds and times are those of plain TCP. (A goroutine for each connection that does
// blocking writes was the other way: it costs a stack for each client that is sent
// something, and a hand-over for each flush.)
//
// While it is idle such a connection holds its keys and the Conn's buffer for the
// header of a record, and none of ours.
type tlsTransport struct {
	lower transport
	conn  *tls.Conn
	done  atomic.Bool // the handshake is complete

	turns turns       // of handshakes that compute
	of    *conn       // whose it is, for its time; nil in tests
	mine  bool        // one of them is taken; of the goroutine that does the handshake
	woken atomic.Bool // reads are to fail

	// Of reading.
	in *input // ciphertext that the Conn has not read; nil for none
	at int    // how much of it it has

	vec     [1][]byte
	covered int // bytes offered that are encrypted and were not told as written; both of the writer

	mu      sync.Mutex // guards the following; nothing is waited for under it
	sealed  []byte     // ciphertext that the transport below has not taken
	mem     *block     // that sealed began in; nil for none
	sealing bool       // what the Conn writes is what the writer gave it
	asked   bool       // the Conn has written something else, that nobody may have seen
}

const (
	// sealAtOnce is how much is encrypted before it is written: with what TLS adds
	// it fits a large block.
	sealAtOnce = largeBlock - 4<<10

	// sealRounds is how often one write does so, while the socket takes all of it,
	// before it leaves the rest to the goroutine that a full socket gets.
	sealRounds = 4

	// recordOverhead is more than what TLS adds to a record, and recordSize is how
	// much it puts into one.
	recordOverhead, recordSize = 128, 16 << 10

	// sealedMost bounds what the Conn may have written that nobody has asked for:
	// answers to a client that asks for new keys and reads nothing.
	sealedMost = 2 * largeBlock
)

// errNothing tells a Conn that no more ciphertext has come.
var errNothing error = nothing{}

type nothing struct{}

func (nothing) Error() string   { return "nothing to read yet" }
func (nothing) Timeout() bool   { return true }
func (nothing) Temporary() bool { return true }

// errUnread is what a client's connection ends with that has us write and does not
// read.
var errUnread = errors.New("tls: the client asks for keys and takes none")

// A handshakeError is a TLS handshake that failed.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return "TLS handshake: " + e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// turns are how many handshakes compute at once: as many as there are processors. When
// thousands of clients come back together there is work for seconds; were all of it begun
// at once, each handshake would end as late as the last, most of them too late for their
// clients, and whatever else the server does would wait between them: the log, and with
// it those who have their handshake behind them. A turn is held while nothing is waited
// for, so nobody can sit on it; and the time until it is had is not the client's.
type turns chan struct{}

func newTurns() turns { return make(turns, runtime.GOMAXPROCS(0)) }

func newTLSTransport(lower transport, config *tls.Config, turns turns, of *conn) *tlsTransport {
	t := &tlsTransport{lower: lower, turns: turns, of: of}
	t.conn = tls.Server(ciphertext{t}, config)
	return t
}

// shake does the handshake, which reads and writes as TLS wants it: nothing else is
// read or written before. It runs on a stack that is thrown away: what it needs of
// one is several times what a connection needs ever after.
func (t *tlsTransport) shake() error {
	ended := make(chan error, 1)
	go func() {
		err := t.conn.Handshake()
		t.pause()
		ended <- err
	}()
	if err := <-ended; err != nil {
		if errors.Is(err, errWoken) {
			return err
		}
		return &handshakeError{err}
	}
	t.done.Store(true)
	return nil
}

func (t *tlsTransport) read(hungry bool) (*input, error) {
	if !t.done.Load() {
		if err := t.shake(); err != nil {
			return nil, err
		}
	}
	for {
		in, err := t.open(hungry)
		if err == nil {
			return in, nil
		}
		if !errors.Is(err, errNothing) {
			return nil, err
		}
		if t.isAsked() {
			// The client asked for something of TLS itself. Who reads sees to it
			// that it is written.
			return newInput(false), nil
		}
		if t.in, err = t.lower.read(hungry); err != nil {
			return nil, err
		}
	}
}

// open decrypts what has come, as many records as the input takes: a client that
// sends much at once is to be handled at once. It fails if there is none.
func (t *tlsTransport) open(hungry bool) (*input, error) {
	in := newInput(hungry)
	for in.n < len(in.buf) {
		n, err := t.conn.Read(in.buf[in.n:])
		in.n += n
		if err != nil && in.n == 0 {
			in.release()
			return nil, readError(err)
		}
		if err != nil { // it will be found again, if it is more than that
			break
		}
	}
	return in, nil
}

// isAsked says whether the Conn has something to write that nobody has seen.
func (t *tlsTransport) isAsked() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	asked := t.asked
	t.asked = false
	return asked
}

func (t *tlsTransport) owes() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.sealed) > 0
}

func (t *tlsTransport) write(bufs [][]byte, wait bool) (n int, err error) {
	offered := sizeOf(bufs)
	for range sealRounds {
		if t.covered == 0 && n < offered {
			if t.covered, err = t.seal(bufs, n, min(offered-n, sealAtOnce)); err != nil {
				return n, err
			}
		}
		told, all, err := t.pass(wait && n == 0)
		if n += told; err != nil || !all || n == offered {
			return n, err
		}
	}
	return n, nil
}

// seal encrypts the n bytes of bufs behind the first skip. Small pieces are put
// together first: each would be a record.
func (t *tlsTransport) seal(bufs [][]byte, skip, n int) (int, error) {
	t.reserve(n)
	defer func() {
		t.mu.Lock()
		t.sealing = false
		t.mu.Unlock()
	}()
	for len(bufs) > 0 && skip >= len(bufs[0]) {
		skip -= len(bufs[0])
		bufs = bufs[1:]
	}
	if first := bufs[0][skip:]; len(first) >= n {
		return t.conn.Write(first[:n])
	}
	k := largeBlocks.Get().(*block)
	defer k.release()
	plain := append(k.b[:0], bufs[0][skip:]...)
	for _, b := range bufs[1:] {
		if plain = append(plain, b[:min(len(b), n-len(plain))]...); len(plain) == n {
			break
		}
	}
	return t.conn.Write(plain)
}

// reserve gets memory for the ciphertext of n bytes. (The Conn writes record by
// record: what grew with them would be copied several times.)
func (t *tlsTransport) reserve(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sealing = true
	if len(t.sealed) > 0 {
		return
	}
	if n+(n/recordSize+1)*recordOverhead <= smallBlock {
		t.mem = smallBlocks.Get().(*block)
	} else {
		t.mem = largeBlocks.Get().(*block)
	}
	t.sealed = t.mem.b[:0]
}

// pass gives ciphertext to the transport below, once, and says how much of what was
// offered is thereby written, and whether nothing is left. While something is left,
// at least one byte of what it holds counts as not written.
func (t *tlsTransport) pass(wait bool) (told int, all bool, err error) {
	t.mu.Lock()
	t.vec[0] = t.sealed
	t.mu.Unlock()
	if len(t.vec[0]) == 0 {
		return 0, true, nil
	}
	wrote, err := t.lower.write(t.vec[:], wait)
	t.vec[0] = nil
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sealed = t.sealed[wrote:]
	if told, all = t.covered, len(t.sealed) == 0; !all {
		told = max(0, min(wrote, t.covered-1))
	}
	t.covered -= told
	if all {
		if t.mem != nil {
			t.mem.release()
		}
		t.sealed, t.mem = nil, nil
	}
	return told, all, err
}

// compute takes a turn of the handshake's; it fails if the connection is to end
// meanwhile.
func (t *tlsTransport) compute() error {
	select {
	case t.turns <- struct{}{}:
	default:
		if t.of == nil {
			t.turns <- struct{}{}
			break
		}
		since := t.of.srv.wheel.now.Load()
		t.of.busy.Store(true)
		t.turns <- struct{}{}
		t.of.seen.Add(t.of.srv.wheel.now.Load() - since)
		t.of.busy.Store(false)
	}
	t.mine = true
	if t.woken.Load() {
		return errWoken
	}
	return nil
}

// pause gives the turn back, if one is taken, before anything is waited for.
func (t *tlsTransport) pause() {
	if t.mine {
		t.mine = false
		<-t.turns
	}
}

func (t *tlsTransport) wake() {
	t.woken.Store(true)
	t.lower.wake()
}

func (t *tlsTransport) calm() {
	t.woken.Store(false)
	t.lower.calm()
}

func (t *tlsTransport) probe() { t.lower.probe() }

// finish says goodbye in TLS, too, as far as the socket takes it.
func (t *tlsTransport) finish() {
	if t.done.Load() && t.conn.CloseWrite() == nil { // before, all of that is the handshake's
		_, _, _ = t.pass(false)
	}
	t.lower.finish()
}

func (t *tlsTransport) close(reset bool) { t.lower.close(reset) }

func (t *tlsTransport) remote() net.Addr { return t.lower.remote() }

func (t *tlsTransport) security() *tls.ConnectionState {
	if !t.done.Load() {
		return nil
	}
	state := t.conn.ConnectionState()
	return &state
}

// ciphertext is the stream that a Conn runs on.
type ciphertext struct{ t *tlsTransport }

// Read reads what has come; during the handshake, when nobody minds, it waits.
func (c ciphertext) Read(p []byte) (n int, err error) {
	t := c.t
	if t.in == nil {
		if t.done.Load() {
			return 0, errNothing
		}
		t.pause()
		if t.in, err = t.lower.read(false); err != nil {
			return 0, err
		}
		if err := t.compute(); err != nil {
			return 0, err
		}
	}
	n = copy(p, t.in.buf[t.at:t.in.n])
	if t.at += n; t.at == t.in.n {
		t.in.release()
		t.in, t.at = nil, 0
	}
	return n, nil
}

// Write puts ciphertext behind what waits; during the handshake it writes it.
func (c ciphertext) Write(p []byte) (n int, err error) {
	t := c.t
	if !t.done.Load() {
		t.pause()
	}
	for !t.done.Load() {
		k, err := t.lower.write([][]byte{p[n:]}, true)
		if n += k; err != nil || n == len(p) {
			return n, err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.sealed)+len(p) > sealedMost {
		return 0, errUnread
	}
	t.asked = t.asked || !t.sealing
	t.sealed = append(t.sealed, p...)
	return len(p), nil
}

// Close and deadlines are the transport's business.
func (c ciphertext) Close() error                     { return nil }
func (c ciphertext) LocalAddr() net.Addr              { return c.t.lower.remote() }
func (c ciphertext) RemoteAddr() net.Addr             { return c.t.lower.remote() }
func (c ciphertext) SetDeadline(time.Time) error      { return nil }
func (c ciphertext) SetReadDeadline(time.Time) error  { return nil }
func (c ciphertext) SetWriteDeadline(time.Time) error { return nil }
