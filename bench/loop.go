package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// A loop is the whole of a generator's dealings with the kernel: one epoll set,
// one thread, no goroutine. It is used by one goroutine only.
//
// A turn reads once from each socket that is ready, hands the packets to handle,
// and then writes once to each connection that has something to say. Reading
// before writing is what keeps the generator cheap and the load fair: all that
// has come in by the start of a turn is answered by one write.
type loop struct {
	epoll  int
	began  time.Time        // the zero of all stamps
	nodes  []netip.AddrPort // of the broker
	conns  []*conn          // by conn.index
	dirty  []*conn          // have output that was not tried yet
	events []unix.EpollEvent
	buf    []byte // for one read; every handled packet aliases it

	// handle is given each packet; body is valid until it returns.
	handle func(c *conn, first byte, body []byte) error

	at            int64 // when the latest read returned
	reads, writes uint64
}

// A conn is one connection to the broker.
type conn struct {
	index   int
	fd      int // -1 once it is closed
	node    int // of the broker, to which it goes; counted on round where there are fewer
	version byte
	name    string // the client id
	user    string // "" for an anonymous client
	token   string // the user's password
	barred  bool   // others may see what the user asks for, and it may not
	tail    []byte // the start of a packet whose end has not come
	out     []byte // not yet written
	dirty   bool   // is in loop.dirty
	blocked bool   // the socket was full; epoll tells when it is not
	up      bool   // the TCP connection stands
	ready   bool   // CONNACK has come, and SUBACK for all filters
	window  int    // the receive maximum of the broker

	filters []string // to be subscribed to, and not yet asked for
	asked   int      // how many of them the last SUBSCRIBE had
	qos     byte     // of these subscriptions
	durable bool
	absent  bool // it leaves as soon as it has subscribed, and is ready when it is gone
	left    bool // it has said that it leaves

	sub *subscriber // what it is to the load
	pub *publisher
}

// turnEvents is how many ready sockets one turn takes at most.
const turnEvents = 1024

func newLoop(began time.Time, nodes []netip.AddrPort) (*loop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	return &loop{
		epoll: ep, began: began, nodes: nodes,
		events: make([]unix.EpollEvent, turnEvents),
		buf:    make([]byte, 64<<10),
	}, nil
}

// now is nanoseconds since the loop began.
func (l *loop) now() int64 { return int64(time.Since(l.began)) }

// close closes every connection as a vanished client would.
func (l *loop) close() {
	for _, c := range l.conns {
		if c.fd >= 0 {
			unix.Close(c.fd)
		}
	}
	unix.Close(l.epoll)
}

// dial begins to connect c. The source address is one of 127.0.0.0/24, so that
// no address runs out of ports.
func (l *loop) dial(c *conn) error {
	to := l.nodes[c.node%len(l.nodes)]
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket %d of this process: %w", len(l.conns), err)
	}
	c.fd, c.index = fd, len(l.conns)
	l.conns = append(l.conns, c)
	if err := bindSource(fd, c.index); err != nil {
		return err
	}
	// What a message costs must not depend on Nagle's delay.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("TCP_NODELAY: %w", err)
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connect to %v: %w", to, err)
	}
	c.out = appendConnect(c.out, c)
	c.blocked = true // until epoll says that the connection stands
	return l.register(c, unix.EPOLL_CTL_ADD, unix.EPOLLIN|unix.EPOLLOUT)
}

// sourceEvery is how many connections share a source address.
const sourceEvery = 2000

func bindSource(fd, index int) error {
	// The port is chosen at connect, when the whole quadruple is known.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return fmt.Errorf("IP_BIND_ADDRESS_NO_PORT: %w", err)
	}
	src := unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(1 + index/sourceEvery%250)}}
	if err := unix.Bind(fd, &src); err != nil {
		return fmt.Errorf("bind to %v: %w", src.Addr, err)
	}
	return nil
}

func (l *loop) register(c *conn, op int, events uint32) error {
	err := unix.EpollCtl(l.epoll, op, c.fd, &unix.EpollEvent{Events: events, Fd: int32(c.index)})
	if err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// touch notes that c has output, to be written at the end of this turn.
func (l *loop) touch(c *conn) {
	if !c.dirty {
		c.dirty = true
		l.dirty = append(l.dirty, c)
	}
}

// turn waits for at most wait, handles what is ready, and then calls think,
// which may add output, before it writes.
func (l *loop) turn(wait time.Duration, think func() error) error {
	n, err := unix.EpollWait(l.epoll, l.events, int((wait+time.Millisecond-1)/time.Millisecond))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("epoll_wait: %w", err)
	}
	for i := range max(n, 0) {
		e := &l.events[i]
		if err := l.serve(l.conns[e.Fd], e.Events); err != nil {
			return err
		}
	}
	if err := think(); err != nil {
		return err
	}
	return l.flush()
}

func (l *loop) serve(c *conn, events uint32) error {
	if !c.up {
		if err := l.established(c); err != nil {
			return err
		}
	}
	if events&unix.EPOLLOUT != 0 {
		c.blocked = false
		if err := l.register(c, unix.EPOLL_CTL_MOD, unix.EPOLLIN); err != nil {
			return err
		}
		l.touch(c)
	}
	if events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		return l.read(c)
	}
	return nil
}

func (l *loop) established(c *conn) error {
	code, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	if err != nil {
		return fmt.Errorf("client %s: connect: %w", c.name, err)
	}
	c.up = true
	return nil
}

// read takes once what the socket has, and handles every whole packet in it.
func (l *loop) read(c *conn) error {
	kept := copy(l.buf, c.tail)
	n, err := unix.Read(c.fd, l.buf[kept:])
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return nil
	}
	if err == nil && n == 0 && c.left {
		return l.gone(c)
	}
	if err != nil || n == 0 {
		if err == nil {
			err = errors.New("closed by the broker")
		}
		return fmt.Errorf("client %s: %w", c.name, err)
	}
	l.reads++
	l.at = l.now()
	b := l.buf[:kept+n]
	for {
		first, body, used, err := nextFrame(b)
		if err != nil {
			return fmt.Errorf("client %s: %w", c.name, err)
		}
		if used == 0 {
			break
		}
		if err := l.handle(c, first, body); err != nil {
			return fmt.Errorf("client %s: %w", c.name, err)
		}
		b = b[used:]
	}
	if len(b) == len(l.buf) {
		return fmt.Errorf("client %s: %w: longer than the generator's buffer", c.name, errFrame)
	}
	c.tail = append(c.tail[:0], b...)
	return nil
}

// gone closes a connection that the broker has closed because the client left.
func (l *loop) gone(c *conn) error {
	c.ready = true
	err := unix.Close(c.fd)
	c.fd = -1
	return err
}

// flush writes once to each connection that was touched.
func (l *loop) flush() error {
	for _, c := range l.dirty {
		c.dirty = false
		if c.blocked || len(c.out) == 0 {
			continue
		}
		if err := l.write(c); err != nil {
			return err
		}
	}
	l.dirty = l.dirty[:0]
	return nil
}

func (l *loop) write(c *conn) error {
	n, err := unix.Write(c.fd, c.out)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		n, err = 0, nil
	}
	if err != nil {
		return fmt.Errorf("client %s: write: %w", c.name, err)
	}
	l.writes++
	c.out = c.out[:copy(c.out, c.out[n:])]
	if len(c.out) == 0 {
		return nil
	}
	c.blocked = true
	return l.register(c, unix.EPOLL_CTL_MOD, unix.EPOLLIN|unix.EPOLLOUT)
}
