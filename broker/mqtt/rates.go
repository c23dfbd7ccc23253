package mqtt

import (
	"errors"
	"hash/maphash"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bellwire/bellwire/broker"
)

// A rate allows count events in span ticks, and burst of them at once, by the
// generic cell rate algorithm: it remembers one instant, not the events.
type rate struct{ count, span, burst int64 }

// perSecond allows n a second and ten times that at once.
func perSecond(n int) rate { return rate{int64(n), ticksPerSecond, 10 * int64(n)} }

// A bucket is what has been used of a rate. The zero bucket is unused.
type bucket struct {
	// next is the tick, times count, at which one more event would come if each
	// had waited for its turn; it may be ahead of now by burst of them.
	next int64
}

// take uses the bucket for one event at tick now, unless it is one too many.
func (b *bucket) take(r rate, now int64) bool { return b.takeMany(r, 1, now) }

// takeMany is take for n events at once.
func (b *bucket) takeMany(r rate, n, now int64) bool {
	next := max(b.next, now*r.count) + n*r.span
	if next > now*r.count+r.burst*r.span {
		return false
	}
	b.next = next
	return true
}

// giveBack undoes a take.
func (b *bucket) giveBack(r rate) { b.next -= r.span }

// A gate is a bucket that many take from.
type gate struct {
	mu sync.Mutex
	bucket
}

func (g *gate) take(r rate, now int64) bool {
	if r.count == 0 {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.bucket.take(r, now)
}

// restart forgets what was taken.
func (g *gate) restart() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bucket = bucket{}
}

// Logins hold guessing at passwords to a rate: for each user name from each
// network, so that who guesses keeps the owner out of that network at most, and
// of no other. A try that is one too many is refused, after a pause that grows,
// without a look at the password.
//
// Two tables, of the present ten minutes and of those before, hold what is
// remembered; when one is full the older is forgotten before its time, so nobody
// can make them grow. Loopback, and what is not IP, is not held to it: behind a
// proxy everybody comes from there.
type logins struct {
	seed maphash.Seed

	mu       sync.Mutex // guards the following
	rate     rate       // count 0: none
	now, old map[login]*tries
	turned   int64 // tick at which now began
}

type login struct {
	user    uint64 // a hash: names are not worth keeping
	network netip.Prefix
}

type tries struct {
	bucket
	refused int // in a row
}

const (
	loginSpan  = 10 * ticksPerMinute
	loginsKept = 1 << 15 // in each of two tables
	firstPause = 250 * time.Millisecond
	mostPause  = 5 * time.Second
)

// setRate puts a rate in force. If it is another, what was counted by the one before is
// forgotten: it says nothing of this one.
func (l *logins) setRate(r rate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r != l.rate {
		l.rate, l.now, l.old = r, nil, nil
	}
}

// loginRate is Limits.FailedLogins as a rate.
func loginRate(failures int) rate { return rate{int64(failures), loginSpan, int64(failures)} }

// networkOf returns what logins are counted by: a /24 of IPv4, a /64 of IPv6.
func networkOf(a address) netip.Prefix {
	bits := 64
	if a.Is4() {
		bits = 24
	}
	p, _ := a.Prefix(bits)
	return p
}

// try counts a try to sign in as user from a, at tick now. ok false means that it
// is one too many: to be refused after pause.
func (l *logins) try(user string, a address, now int64) (pause time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate.count == 0 || !a.IsValid() {
		return 0, true
	}
	t := l.find(login{maphash.String(l.seed, user), networkOf(a)}, now)
	if t.take(l.rate, now) {
		t.refused = 0
		return 0, true
	}
	pause = min(firstPause<<min(t.refused, 8), mostPause)
	t.refused++
	return pause, false
}

// pardon forgets a try that was none: the password was right, or nobody looked.
func (l *logins) pardon(user string, a address, now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate.count == 0 || !a.IsValid() {
		return
	}
	l.find(login{maphash.String(l.seed, user), networkOf(a)}, now).giveBack(l.rate)
}

// find returns the tries of k. With mu held.
func (l *logins) find(k login, now int64) *tries {
	if l.now == nil || now-l.turned >= loginSpan {
		l.turn(now)
	}
	t := l.now[k]
	if t != nil {
		return t
	}
	if t = l.old[k]; t == nil {
		t = new(tries)
	}
	if len(l.now) >= loginsKept {
		l.turn(now)
	}
	l.now[k] = t
	return t
}

func (l *logins) turn(now int64) { l.old, l.now, l.turned = l.now, map[login]*tries{}, now }

// A TooManyLogins is why a try to sign in was not looked at: Limits.FailedLogins.
type TooManyLogins struct {
	// RetryAfter is after how long one try is looked at, if there are no others
	// meanwhile.
	RetryAfter time.Duration

	pause time.Duration // how long to hold who can be held
}

func (*TooManyLogins) Error() string { return "too many failed logins" }

// SignIn returns the principal that user and password prove of a client at an
// address which does not come by MQTT. It counts as one that does: a try that is
// one too many is a *TooManyLogins, who is banned is told so (ErrBanned), other errors are as of Config.Authenticate,
// and without that everybody is anonymous. For any goroutine.
func (s *Server) SignIn(user string, password []byte, from net.Addr) (principal string, err error) {
	if s.authenticate == nil {
		return "", nil
	}
	who, err := s.signIn(Login{User: user, Password: password, From: &ConnInfo{Listener: "http", Remote: from}}, addressOf(from))
	if err == nil && s.banned("", who.Principal, ipOf(from)) {
		return "", ErrBanned
	}
	return who.Principal, err
}

func (s *Server) signIn(l Login, from address) (who Identity, err error) {
	user, client := l.User, l.Client
	if user == "" {
		user = s.claims(l.Password)
	}
	if pause, ok := s.logins.try(user, from, s.wheel.now.Load()); !ok {
		return who, s.tooMany(user, client, from, pause)
	}
	who, err = s.authenticate(l)
	if errors.Is(err, broker.ErrBadCredentials) {
		s.loginFailed(user, client, from, err)
	} else {
		s.logins.pardon(user, from, s.wheel.now.Load())
	}
	return who, err
}

// tooMany counts and logs a try to sign in that is not looked at.
func (s *Server) tooMany(user, client string, from address, pause time.Duration) *TooManyLogins {
	s.stats.LoginsRefused.Add(1)
	if pause == firstPause { // the first in a row: they are all alike
		s.logFailedLogin(user, client, from, "too many failed logins: refused without a look at the password", "")
	}
	span := time.Duration(loginSpan/ticksPerSecond) * time.Second
	return &TooManyLogins{RetryAfter: span / time.Duration(max(s.limits.Load().FailedLogins, 1)), pause: pause}
}

// loginReasons are why tries to sign in fail, each with its place in
// Stats.LoginsFailed. The last stands for what none of the others is.
var loginReasons = [...]string{
	"unknown_user", "wrong_password", "wrong_token", "wrong_proof", "malformed_exchange", "other_principal",
	"jwt_malformed", "jwt_algorithm", "jwt_issuer", "jwt_key", "jwt_signature", "jwt_audience", "jwt_expired", "jwt_early", "jwt_principal",
	"certificate_name", "client_id", "way", "certificate_revoked", "crl_stale", "crl_missing", "bridge",
	"other",
}

type loginFailures [len(loginReasons)]atomic.Uint64

// loginFailed counts and logs a try to sign in that failed with err, which may say why
// (LoginReason). The client is not told.
func (s *Server) loginFailed(user, client string, from address, err error) {
	reason, detail := "bad credentials", ""
	place := len(loginReasons) - 1
	var known interface{ LoginReason() string }
	if errors.As(err, &known) {
		reason = known.LoginReason()
		detail = strings.TrimPrefix(known.(error).Error(), reason+": ")
		if i := slices.Index(loginReasons[:], reason); i >= 0 {
			place = i
		}
	}
	s.stats.LoginsFailed[place].Add(1)
	s.logFailedLogin(user, client, from, reason, detail)
}

// A loginLog is how many failed logins were logged, and how many were not since
// one was: whoever guesses must not fill the operator's disk, nor hide by that
// that they do.
type loginLog struct {
	mu sync.Mutex // guards the following
	bucket
	unlogged int
}

// loginLines allows so many log lines.
var loginLines = rate{60, ticksPerMinute, 60}

// note says whether one more is to be logged, and how many were not since the
// last.
func (l *loginLog) note(now int64) (unlogged int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.take(loginLines, now) {
		l.unlogged++
		return 0, false
	}
	unlogged, l.unlogged = l.unlogged, 0
	return unlogged, true
}

// logFailedLogin tells the operator who tried to sign in as whom, and why that failed.
// client is empty if not by MQTT.
func (s *Server) logFailedLogin(user, client string, from address, reason, detail string) {
	unlogged, ok := s.loginLog.note(s.wheel.now.Load())
	if !ok {
		return
	}
	attrs := []any{"user", start(user), "addr", from.network(), "reason", reason}
	if client != "" {
		attrs = append(attrs, "client", start(client))
	}
	if detail != "" && detail != reason {
		attrs = append(attrs, "detail", start(detail))
	}
	if unlogged > 0 {
		attrs = append(attrs, "unlogged", unlogged)
	}
	s.logger.Warn("a login failed", attrs...)
}

// network is the address for people to read.
func (a address) network() string {
	switch {
	case !a.IsValid():
		return "loopback"
	case a.Is4():
		return a.String()
	}
	return networkOf(a).String()
}

// start is as much of a text that a stranger sent as is worth logging.
func start(s string) string {
	const most = 100
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
