//go:build !linux

package link

import (
	"net"
	"time"
)

// tune has the kernel notice that the other end has gone without a word. What is
// not TCP is left as it is.
func tune(nc net.Conn) {
	if tcp, ok := nc.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: int(deadTime / time.Second)})
	}
}
