package link

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tune has the kernel give a connection up when the other end has gone without a
// word. What is not TCP is left as it is.
func tune(nc net.Conn) {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return
	}
	// Errors are of no matter: it is then noticed later, by those who wait for
	// an answer.
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: int(deadTime / time.Second)})
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadTime/time.Millisecond))
		})
	}
}
