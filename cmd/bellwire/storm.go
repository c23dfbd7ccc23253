package main

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/bellwire/bellwire/bw"
)

// A storm is many clients that lose their connections at the same moment and come back
// as clients do: each after a pause of its own, which is longer the more often it was
// turned away. It measures a server by how soon all are back, and holds it to letting
// in everybody who has the right credentials.
//
// Each client is a goroutine with a blocking socket: what is measured is the server's
// handshakes, which cost the server more than they cost the client.
type storm struct {
	to     target               // where the server is; its timeout is that of one try
	resume bool                 // each client resumes its TLS session, as one that keeps its tickets does
	ids    []stormID            // who the clients are
	keep   uint32               // Session Expiry Interval in seconds; 0: sessions end with their connections
	atOnce int                  // how many connect at once before the storm
	first  time.Duration        // pause before the first try to come back: at random, up to this
	most   time.Duration        // each further pause is at random up to twice as long as before, and up to this
	settle time.Duration        // how long connecting, and coming back, may take
	cpu    func() time.Duration // of the server's process so far; nil if not known
}

// A stormID is who a client is.
type stormID struct {
	id       string
	user     string // may be empty beside a password: a signed token says whose it is
	password string
}

// errUnsettled means that not all clients were let in in time.
var errUnsettled = errors.New("not all clients are in")

// stormFigures are what a storm came to.
type stormFigures struct {
	Clients int  `json:"clients"`
	Connect wave `json:"connect"` // before the storm, some at a time
	Storm   wave `json:"storm"`
}

// A wave is all clients getting in once.
type wave struct {
	In       int            `json:"in"`                                  // clients that were let in
	Settled  seconds        `json:"settledSeconds"`                      // until the last of them; of the storm, since the connections were broken
	PerSec   float64        `json:"handshakesPerSecond"`                 // in over settled
	Peak     float64        `json:"mostInASecond"`                       // handshakes
	Back     quantiles      `json:"backSeconds"`                         // until a client was in, over all clients
	Attempt  quantiles      `json:"handshakeSeconds"`                    // of a try that succeeded: from dialing to CONNACK
	Tries    int            `json:"tries"`                               // all
	Refused  map[string]int `json:"refused,omitempty"`                   // tries that were refused for good, by reason code: failed logins above all
	Waits    map[string]int `json:"toldToWait,omitempty"`                // tries that were told to come later, by reason code
	Closed   int            `json:"closed"`                              // tries that were ended without an answer, or not taken
	TimedOut int            `json:"timedOut"`                            // tries without an answer
	BadTLS   int            `json:"badTLS"`                              // tries in which client or server would not agree on TLS
	Failed   map[string]int `json:"failed,omitempty"`                    // tries that failed here: no ports left, say
	Resumed  int            `json:"resumed"`                             // tries that succeeded and resumed a TLS session
	Lost     int            `json:"lost"`                                // clients that were in, and were not kept
	NoState  int            `json:"sessionsLost"`                        // clients that did not find their session
	CPU      seconds        `json:"serverCPUSecondsPerClient,omitempty"` // of the server's process; 0 if not known
}

// seconds is a duration that JSON has in seconds.
type seconds float64

func secondsOf(d time.Duration) seconds { return seconds(d.Seconds()) }

// quantiles are those of many times.
type quantiles struct {
	P50 seconds `json:"p50"`
	P99 seconds `json:"p99"`
	Max seconds `json:"max"`
}

func quantilesOf(sorted []time.Duration) quantiles {
	n := len(sorted)
	return quantiles{secondsOf(sorted[n/2]), secondsOf(sorted[n*99/100]), secondsOf(sorted[n-1])}
}

func total(of map[string]int) (n int) {
	for _, v := range of {
		n += v
	}
	return n
}

// otherFiles is how many file descriptors a process needs beside its clients'.
const otherFiles = 64

// raiseFiles lets this process, and those it starts, have as many files as the system
// allows, and is a fault if a process could not hold so many connections.
func raiseFiles(connections int) error {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return fail(bw.Environment, "cannot read how many files may be open: %w", err)
	}
	want := uint64(connections + otherFiles)
	if uint64(lim.Max) < want {
		return fail(bw.Environment, "%d connections need %d open files, and a process may have %d here", connections, want, lim.Max).
			do("raise the limit, as root by ulimit -Hn %d, or give fewer --clients", want)
	}
	if lim.Cur = lim.Max; syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim) != nil {
		return fail(bw.Environment, "%d connections need %d open files, and the limit cannot be raised", connections, want).do("ulimit -n %d", want)
	}
	return nil
}

// run connects all clients, breaks their connections, and waits until all are back and
// each has been answered once more. errUnsettled comes with figures, and so does the end
// of ctx.
func (s storm) run(ctx context.Context) (f stormFigures, err error) {
	ctx, cancel := context.WithCancel(ctx)
	r := &storming{storm: s, ctx: ctx, places: make(chan struct{}, s.atOnce)}
	for i, id := range s.ids {
		r.clients = append(r.clients, &stormClient{in: r, stormID: id, rng: rand.New(rand.NewPCG(uint64(i), 1))})
	}
	defer func() {
		cancel()
		for _, c := range r.clients {
			c.cut(false)
		}
		r.goroutines.Wait()
	}()
	f.Clients = len(s.ids)
	f.Connect, err = r.wave(func() {
		for _, c := range r.clients {
			r.goroutines.Go(c.live)
		}
	})
	if err != nil {
		return f, err
	}
	f.Storm, err = r.wave(func() {
		for _, c := range r.clients {
			c.cut(true)
		}
	})
	return f, err
}

// A storming is one that runs.
type storming struct {
	storm
	ctx        context.Context
	clients    []*stormClient
	goroutines sync.WaitGroup
	places     chan struct{} // of those that connect for the first time

	mu    sync.Mutex  // guards the following, and what of clients says so
	tally *stormTally // of the present wave
}

// A stormTally is what has been counted of a wave.
type stormTally struct {
	wave
	began    time.Time
	last     time.Time // when a client got in
	back     []time.Duration
	attempts []time.Duration
	present  int           // clients that are in
	answered int           // of them, those that have been answered since all were in
	settled  chan struct{} // closed when all are in
	over     chan struct{} // closed when all have been answered after that
	hopeless chan struct{} // closed when as many were refused as say that all will be
}

// refusedEnough is how many refusals, if nobody was let in yet, say that nobody will be: so
// many, or one of each client.
const refusedEnough = 20

// wave begins something that has all clients get in, and waits until they are.
func (r *storming) wave(begin func()) (wave, error) {
	t := &stormTally{began: time.Now(), settled: make(chan struct{}), over: make(chan struct{}), hopeless: make(chan struct{})}
	t.Refused, t.Waits, t.Failed = map[string]int{}, map[string]int{}, map[string]int{}
	before := r.used()
	r.mu.Lock()
	r.tally = t
	r.mu.Unlock()
	begin()
	err := r.await(t)
	r.mu.Lock()
	defer r.mu.Unlock()
	t.figure()
	w := t.wave
	w.Refused, w.Waits, w.Failed = maps.Clone(w.Refused), maps.Clone(w.Waits), maps.Clone(w.Failed)
	if w.In > 0 {
		w.CPU = secondsOf(r.used()-before) / seconds(w.In)
	}
	return w, err
}

// used is the server's CPU time so far; 0 if not known.
func (r *storming) used() time.Duration {
	if r.cpu == nil {
		return 0
	}
	return r.cpu()
}

// await returns when all are in and have been answered a ping each, or why they are not.
func (r *storming) await(t *stormTally) error {
	limit := time.NewTimer(r.settle)
	defer limit.Stop()
	for _, done := range []chan struct{}{t.settled, t.over} {
		select {
		case <-done:
		case <-t.hopeless:
			return errUnsettled
		case <-limit.C:
			return errUnsettled
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
		if done == t.settled {
			for _, c := range r.clients { // who was let in may have been ended since
				c.ping()
			}
		}
	}
	return nil
}

// figure makes the figures of what was counted.
func (t *stormTally) figure() {
	t.In = len(t.back)
	if t.In == 0 {
		return
	}
	settled := t.last.Sub(t.began)
	t.Settled, t.PerSec = secondsOf(settled), float64(t.In)/max(settled, time.Millisecond).Seconds()
	slices.Sort(t.back)
	slices.Sort(t.attempts)
	t.Back, t.Attempt, t.Peak = quantilesOf(t.back), quantilesOf(t.attempts), peakOf(t.back)
}

// peakOf returns how many of the times, which are sorted, lie within a second at most.
func peakOf(sorted []time.Duration) float64 {
	most, from := 0, 0
	for to, at := range sorted {
		for at-sorted[from] >= time.Second {
			from++
		}
		most = max(most, to-from+1)
	}
	return float64(most)
}

// entered notes that a client is in, by a try that took so long.
func (r *storming) entered(c *stormClient, took time.Duration, present, resumed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tally
	t.Tries++
	t.last = time.Now()
	t.attempts = append(t.attempts, took)
	if resumed {
		t.Resumed++
	}
	if c.been && r.keep > 0 && !present {
		t.NoState++
	}
	if c.wave != t { // else it is back after the server has lost it
		t.back = append(t.back, t.last.Sub(t.began))
	}
	c.been, c.wave, c.present, c.answered = true, t, true, false
	if t.present++; t.present == len(r.clients) && !isClosed(t.settled) {
		close(t.settled)
	} else if isClosed(t.settled) {
		r.heard(c)
	}
}

// lost notes that a client which was in is not any more, by no doing of ours.
func (r *storming) lost(c *stormClient) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tally
	t.Lost++
	if c.wave == t && c.present {
		t.present--
		if c.answered {
			t.answered--
		}
	}
	c.present, c.answered = false, false
}

// failed notes that a try has failed.
func (r *storming) failed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tally
	t.note(err)
	if total(t.Refused) < min(len(r.clients), refusedEnough) || isClosed(t.hopeless) {
		return
	}
	if !slices.ContainsFunc(r.clients, func(c *stormClient) bool { return c.been }) {
		close(t.hopeless)
	}
}

// answer notes that the server has answered a client.
func (r *storming) answer(c *stormClient) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard(c)
}

// heard is answer for the holder of mu.
func (r *storming) heard(c *stormClient) {
	t := r.tally
	if c.wave != t || !c.present || c.answered || !isClosed(t.settled) {
		return
	}
	c.answered = true
	if t.answered++; t.answered == len(r.clients) && !isClosed(t.over) {
		close(t.over)
	}
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// dialRaw opens a connection, with TLS if conf is not nil, and gives the one below, too. raw is nil for a Unix socket.
func (t target) dialRaw(ctx context.Context, conf *tls.Config) (conn net.Conn, raw *net.TCPConn, err error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, t.network, t.address)
	if err != nil {
		return nil, nil, err
	}
	raw, _ = nc.(*net.TCPConn)
	if conf == nil {
		return nc, raw, nil
	}
	secure := tls.Client(nc, conf)
	if err := secure.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, nil, err
	}
	return secure, raw, nil
}
