package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/cluster/certs"
)

// devTLSLife is how long certificates of dev are good.
const devTLSLife = 30 * 24 * time.Hour

// makeDevTLS has a node take clients by TLS, too, on port 8883, and serve HTTPS on 8443; or
// on any if that of MQTT is any. It makes an authority and a certificate for this machine; remove removes
// both.
func makeDevTLS(c *serverConfig, port int) (remove func(), err error) {
	dir, err := os.MkdirTemp("", "bellwire-dev-")
	if err != nil {
		return nil, fail(bw.File, "%w", err).do("set TMPDIR to a directory that can be written")
	}
	remove = func() { _ = os.RemoveAll(dir) }
	if err = issueDevTLS(dir); err != nil {
		remove()
		return nil, err
	}
	at, web := 8883, 8443
	if port == 0 {
		at, web = 0, 0
	}
	c.httpMQTT = true
	c.http = net.JoinHostPort("127.0.0.1", strconv.Itoa(web))
	c.httpTLS = tlsSpec{cert: filepath.Join(dir, certs.NodeCert), key: filepath.Join(dir, certs.NodeKey), min: "1.2"}
	c.listeners = append(c.listeners, listenerSpec{
		kind: "mqtts", name: "mqtts", option: "--tls", addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(at)),
		tls: c.httpTLS,
	})
	return remove, nil
}

func issueDevTLS(dir string) error {
	now := time.Now()
	a, err := certs.NewAuthority(now, devTLSLife)
	if err != nil {
		return err
	}
	pair, err := a.Issue("localhost", []string{"127.0.0.1", "::1"}, now, 0) // as long as the authority
	if err != nil {
		return err
	}
	if err := certs.SaveNode(dir, a, pair, false); err != nil {
		return fail(bw.File, "%w", err).do("set TMPDIR to a directory that can be written")
	}
	return nil
}

// devAuthority is the file with the certificate of the authority that dev --tls made; empty without.
func (s *server) devAuthority() string {
	if len(s.config.listeners) == 0 {
		return ""
	}
	return filepath.Join(filepath.Dir(s.config.listeners[0].tls.cert), certs.AuthorityCert)
}

// devTLS says where TLS is and what to paste for it; empty without.
func (s *server) devTLS() string {
	line := s.readyLine()
	if line.MQTTS == "" {
		return ""
	}
	_, port, _ := net.SplitHostPort(line.MQTTS)
	ca := s.devAuthority()
	return fmt.Sprintf("  TLS      mqtts://%s\n           mosquitto_pub -p %s --cafile %s -t home/kitchen/temp -m 21.5\n"+
		"  HTTPS    https://%s, and MQTT by WebSocket at wss://%[4]s/mqtt\n           bellwire cluster status --server https://%[4]s --cafile %[3]s\n", line.MQTTS, port, ca, line.HTTP)
}
