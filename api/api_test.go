package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// What there is nothing for is refused in the words of all refusals; what is there is
// served as ever.
func TestWhatThereIsNothingFor(t *testing.T) {
	h := Handler(Config{Ready: func() []Check { return nil }, Profile: true})
	for _, c := range []struct {
		method, path, allow, says string
		status                    int
	}{
		{"GET", "/nowhere", "", "there is nothing at /nowhere", 404},
		{"POST", "/livez", "GET, HEAD", "POST is not for /livez, but GET, HEAD", 405},
		{strings.Repeat("X", 100), "/livez", "GET, HEAD", strings.Repeat("X", 20) + " is not for", 405},
		{"GET", "/" + strings.Repeat("y", 5000), "", "there is nothing at /yyy", 404},
		{"GET", "/livez", "", "ok", 200},
		{"GET", "/debug/pprof", "", "/debug/pprof/", 307},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		kind := w.Header().Get("Content-Type")
		if w.Code != c.status || w.Header().Get("Allow") != c.allow || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%.20s %.20s: %d %v %.200s", c.method, c.path, w.Code, w.Header(), w.Body)
		}
		if refused := c.status >= http.StatusBadRequest; refused != (kind == "application/problem+json") || w.Body.Len() > 500 {
			t.Errorf("%.20s %.20s: %d bytes of %s", c.method, c.path, w.Body.Len(), kind)
		}
	}
}
