package blackbox

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// A browser is a Chromium without a window. It has one page open, of a server of the
// test's, on which MQTT.js does what the test says.
type browser struct {
	commands chan browserCommand

	mu   sync.Mutex // guards the following
	said map[int]chan string
}

// A browserCommand is one thing to do on the page.
type browserCommand struct {
	ID      int    `json:"id"`
	Verb    string `json:"verb"`
	URL     string `json:"url"`
	Version int    `json:"version"`
	Topic   string `json:"topic"`
	Text    string `json:"text"`
}

// newBrowser starts one. It takes certificates with the key of that in cert, whoever has
// issued them: it does not read the test's authority.
func newBrowser(t *testing.T, cert string) *browser {
	t.Helper()
	need(t, "chromium", "chromium")
	library := filepath.Join(npmModules(t), "mqtt", "dist", "mqtt.min.js")
	b := &browser{commands: make(chan browserCommand, 100), said: map[int]chan string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "testdata/browser.html") })
	mux.HandleFunc("GET /mqtt.min.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, library) })
	mux.HandleFunc("GET /next", b.next)
	mux.HandleFunc("POST /said", b.hear)
	page := httptest.NewServer(mux)
	dir := t.TempDir()
	var said bytes.Buffer
	cmd := exec.Command("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--disable-extensions", "--disable-component-update", "--no-proxy-server",
		"--user-data-dir="+dir, "--ignore-certificate-errors-spki-list="+keyHash(t, cert), page.URL)
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_CACHE_HOME="+dir)
	cmd.Stderr = &said
	cmd.WaitDelay = mq.Patience // its children may hold the pipe for a while
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // with its processes for pages and the network
		_ = cmd.Wait()
		page.CloseClientConnections()
		page.Close()
		if t.Failed() {
			t.Logf("chromium: %.2000s", said.String())
		}
	})
	return b
}

// keyHash is how Chromium names a certificate's key.
func keyHash(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s holds no PEM", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// next gives the page something to do, or has it ask again.
func (b *browser) next(w http.ResponseWriter, r *http.Request) {
	select {
	case c := <-b.commands:
		_ = json.NewEncoder(w).Encode(c)
	case <-time.After(time.Second):
		w.WriteHeader(http.StatusNoContent)
	case <-r.Context().Done():
	}
}

func (b *browser) hear(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	var id int
	if _, bad := fmt.Sscan(r.URL.Query().Get("id"), &id); err != nil || bad != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	b.mu.Lock()
	to := b.said[id]
	b.mu.Unlock()
	select {
	case to <- strings.TrimPrefix(string(text), "> "):
	case <-r.Context().Done():
	}
}

// do has the page do something, and returns what it says after that was done: what it
// has received.
func (b *browser) do(t *testing.T, c browserCommand) <-chan string {
	t.Helper()
	said := make(chan string, 100)
	b.mu.Lock()
	c.ID = len(b.said)
	b.said[c.ID] = said
	b.mu.Unlock()
	b.commands <- c
	select {
	case text := <-said:
		if text != "done" {
			t.Fatalf("MQTT.js in Chromium, %+v: %s", c, text)
		}
	case <-time.After(2 * mq.Patience): // a browser takes its time to start
		t.Fatalf("MQTT.js in Chromium says nothing to %+v", c)
	}
	return said
}

// peer is the browser as a client of one version.
func (b *browser) peer(version int) peer {
	url := func(addr string) string {
		at := whereOf(addr)
		return at.scheme + "://" + net.JoinHostPort(at.host, at.port) + "/mqtt"
	}
	return peer{
		name: fmt.Sprintf("Chromium %d", version),
		subscribe: func(t *testing.T, addr, filter string) <-chan string {
			t.Helper()
			return b.do(t, browserCommand{Verb: "sub", URL: url(addr), Version: version, Topic: filter})
		},
		publish: func(t *testing.T, addr, topic, text string) {
			t.Helper()
			b.do(t, browserCommand{Verb: "pub", URL: url(addr), Version: version, Topic: topic, Text: text})
		},
	}
}
