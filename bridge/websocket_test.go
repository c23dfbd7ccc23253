package bridge

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// A deadline ends a read or a write that is under way, or is begun after it, as one that timed
// out; one that passes between two of them ends nothing.
func TestWebSocketDeadlines(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"mqtt"}})
		if err != nil {
			t.Error(err)
			return
		}
		for { // an echo
			kind, b, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, b) != nil {
				return
			}
		}
	}))
	defer s.Close()
	c, err := WebSocketDial(nil)(t.Context(), "ws"+strings.TrimPrefix(s.URL, "http"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	past := time.Unix(0, 0)
	for range 2 {
		_ = c.SetWriteDeadline(past)
		_ = c.SetReadDeadline(past)
		_ = c.SetWriteDeadline(time.Time{})
		_ = c.SetReadDeadline(time.Time{})
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatalf("a write after a deadline that is over: %v", err)
		}
		b := make([]byte, 9)
		if n, err := c.Read(b[:2]); n != 2 || err != nil {
			t.Fatalf("a read after a deadline that is over: %v", err)
		}
		if n, err := c.Read(b); n != 3 || err != nil {
			t.Fatalf("the rest of it: %d bytes, %v", n, err)
		}
	}
	_ = c.SetReadDeadline(past)
	_, err = c.Read(make([]byte, 1))
	if f, ok := readFailed(err).(*failed); !ok || f.kind != FailTimeout {
		t.Errorf("a read that takes too long: %v", err)
	}
}

// A deadline that is set while a write is under way, because who writes is to leave, ends it: a
// peer that takes nothing would hold us for as long as the write may take.
func TestWebSocketWriteIsEnded(t *testing.T) {
	began, over := make(chan struct{}), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"mqtt"}})
		if err != nil {
			t.Error(err)
			return
		}
		_, _, _ = c.Reader(r.Context()) // and takes nothing of it
		close(began)
		<-over
		_ = c.CloseNow()
	}))
	defer s.Close()
	defer close(over)
	c, err := WebSocketDial(nil)(t.Context(), "ws"+strings.TrimPrefix(s.URL, "http"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetWriteDeadline(time.Now().Add(time.Hour))
	ended := make(chan error, 1)
	go func() {
		_, err := c.Write(make([]byte, 32<<20))
		ended <- err
	}()
	<-began
	_ = c.SetWriteDeadline(time.Now())
	select {
	case err := <-ended:
		if f, ok := readFailed(err).(*failed); !ok || f.kind != FailTimeout {
			t.Errorf("the write ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the write goes on")
	}
}

// What answers and has no MQTT by WebSocket is told apart from what does not answer, and is
// not followed elsewhere.
func TestWebSocketRefused(t *testing.T) {
	elsewhere := 0
	mux := http.NewServeMux()
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/elsewhere", func(http.ResponseWriter, *http.Request) { elsewhere++ })
	mux.HandleFunc("/chat", func(w http.ResponseWriter, r *http.Request) {
		if c, err := websocket.Accept(w, r, nil); err == nil {
			_, _, _ = c.Read(context.WithoutCancel(r.Context()))
		}
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	base := "ws" + strings.TrimPrefix(s.URL, "http")
	for _, path := range []string{"/nothing", "/moved", "/chat"} {
		_, err := WebSocketDial(nil)(t.Context(), base+path)
		f, ok := dialFailed(err, base+path).(*failed)
		if !ok || f.kind != FailRefused || f.todo == "" {
			t.Errorf("%s: %v", path, err)
		}
	}
	if elsewhere > 0 {
		t.Error("a redirection was followed")
	}
	s.Close()
	_, err := WebSocketDial(nil)(t.Context(), base+"/mqtt")
	if f, ok := dialFailed(err, base).(*failed); !ok || f.kind != FailDial {
		t.Errorf("nobody there: %v", err)
	}
}
