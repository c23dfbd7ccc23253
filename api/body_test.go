package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// fakeBans notes what it is asked to do.
type fakeBans struct{ did []string }

func (f *fakeBans) do(format string, args ...any) error {
	f.did = append(f.did, fmt.Sprintf(format, args...))
	return nil
}

func (f *fakeBans) List(context.Context) ([]Ban, error) { return nil, f.do("list") }

func (f *fakeBans) Ban(_ context.Context, _ string, b Ban) (Ban, error) {
	return b, f.do("ban %s %s %s", b.Client, b.User, b.Address)
}

func (f *fakeBans) Unban(_ context.Context, _ string, b Ban) error {
	return f.do("unban %s %s %s", b.Client, b.User, b.Address)
}

func (f *fakeBans) Kick(_ context.Context, _ string, k Kicking) error {
	return f.do("kick %s", k.Client)
}

// operated is a node where everything is an operator's who is on its machine.
func operated(f *fakeBans) http.Handler {
	resources := fakeResources(false)
	resources.SetPolicy = func(context.Context, string, string, string, []byte, *Document) ([]OwnFault, error) {
		return nil, errors.New("set")
	}
	return Handler(Config{Resources: resources, Bans: f, Policies: new(fakePolicies), Operators: &Operators{
		Identify: resources.Identify,
		Includes: func(string) bool { return false },
		Local:    func(netip.AddrPort, netip.AddrPort) bool { return true },
	}})
}

// A request's body is one JSON value of what there is, or nothing is done.
func TestBodies(t *testing.T) {
	for _, c := range []struct {
		what, method, path, body string
		status                   int
		says, did                string
	}{
		{"one value", "POST", "/v1/bans", ` {"client":"c"} ` + "\n", 201, "", "ban c  "},
		{"another behind it", "POST", "/v1/bans", `{"client":"c"} {"user":"eve@x.org"}`, 400, "more behind", ""},
		{"something behind it", "POST", "/v1/bans", `{"client":"c"}}`, 400, "more behind", ""},
		{"nothing", "POST", "/v1/bans", "", 400, "empty", ""},
		{"a part", "POST", "/v1/bans", `{"client":`, 400, "unexpected EOF", ""},
		{"a member that there is not", "POST", "/v1/bans", `{"cliant":"c"}`, 400, `did you mean \"client\"?`, ""},
		{"a member like none", "POST", "/v1/bans", `{"x":"c"}`, 400, `"code":"BW-2001"`, ""},
		{"too much", "POST", "/v1/bans", `{"reason":"` + strings.Repeat("x", maxRequest) + `"}`, 413, "at most 16384 bytes", ""},
		{"too much of a policy", "PUT", "/v1/policy", strings.Repeat("#", maxPolicy+1), 413, "at most", ""},
		{"one", "DELETE", "/v1/bans?user=eve@x.org", "", 200, "", "unban  eve@x.org "},
		{"a name that there is not", "DELETE", "/v1/bans?user=eve@x.org&cliant=c", "", 400, `did you mean \"client\"?`, ""},
		{"one twice", "DELETE", "/v1/bans?user=eve@x.org&user=bob@x.org", "", 400, "user", ""},
		{"nobody", "DELETE", "/v1/bans", "", 400, "client, user or address", ""},
		{"a client", "POST", "/v1/clients/kick", `{"client":"c"}`, 200, "", "kick c"},
		{"no client", "POST", "/v1/clients/kick", `{}`, 400, "which client", ""},
	} {
		f := new(fakeBans)
		w := httptest.NewRecorder()
		operated(f).ServeHTTP(w, fromHere(httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))))
		if did := strings.Join(f.did, "; "); w.Code != c.status || did != c.did || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s: %d %s, did %q; want %d with %q, did %q", c.what, w.Code, w.Body, did, c.status, c.says, c.did)
		}
	}
}

// fromHere is r as a program on the node's machine sends it.
func fromHere(r *http.Request) *http.Request {
	r.Host, r.RemoteAddr = "127.0.0.1:8080", "127.0.0.1:40000"
	at := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080}
	return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, at))
}

// A body that stands still for longer than the server waits is no large one, and nothing is done.
func TestSlowBodies(t *testing.T) {
	f := new(fakeBans)
	h := operated(f)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) // as if all its time had passed
		h.ServeHTTP(w, r)
	}))
	defer s.Close()
	for _, request := range []string{
		"POST /v1/bans", "PUT /v1/policy", "POST /v1/policy/rollback", "PUT /v1/me/policy/presence", "POST /v1/presence/subscriptions/approve",
	} {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		host := s.Listener.Addr()
		authorization := ""
		if strings.Contains(request, "presence") {
			authorization = "Authorization: Basic YW5hOnJpZ2h0\r\n"
		}
		fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: %s\r\n%sContent-Length: 100\r\nConnection: close\r\n\r\n{", request, host, authorization)
		answer, _ := io.ReadAll(c)
		c.Close()
		if !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") || len(f.did) > 0 {
			t.Errorf("%s: %s, did %q", request, answer, f.did)
		}
	}
}
