package kind

import (
	"errors"
	"testing"
	"time"
)

var soft = Semantics{DefaultExpires: time.Hour, MinExpires: 30 * time.Second, MaxExpires: 24 * time.Hour}

// The table of RFC 3903 section 4.1, and what is no operation in it: which
// publication results, which error is told, and that the old one is as it was.
func TestPublish(t *testing.T) {
	doc := func(s string) *Document { return &Document{ContentType: "x/y", Body: []byte(s)} }
	old := &Publication{Source: "pc", ETag: "e1", Published: noon, Expires: noon.Add(time.Hour), Doc: *doc("old"), Value: "old"}
	later := noon.Add(10 * time.Minute)
	for _, c := range []struct {
		name      string
		old       *Publication
		u         Update
		err       error
		body      string // of what results; empty: nothing
		published time.Time
		expires   time.Duration // from the update on
	}{
		{"initial", nil, Update{Doc: doc("new")}, nil, "new", later, time.Hour},
		{"initial over another", old, Update{Doc: doc("new")}, nil, "new", later, time.Hour},
		{"modify", old, Update{Doc: doc("new"), IfMatch: "e1", Expires: time.Minute}, nil, "new", later, time.Minute},
		{"refresh", old, Update{IfMatch: "e1", Expires: 2 * time.Hour}, nil, "old", noon, 2 * time.Hour},
		{"remove", old, Update{IfMatch: "e1", Remove: true}, nil, "", later, 0},
		{"remove whatever is there", old, Update{Remove: true}, nil, "", later, 0},
		{"remove nothing", nil, Update{Remove: true}, nil, "", later, 0},
		{"modify, stale tag", old, Update{Doc: doc("new"), IfMatch: "e0"}, ErrStale, "", later, 0},
		{"refresh, stale tag", old, Update{IfMatch: "e0"}, ErrStale, "", later, 0},
		{"remove, stale tag", old, Update{IfMatch: "e0", Remove: true}, ErrStale, "", later, 0},
		{"refresh of nothing", nil, Update{IfMatch: "e1"}, ErrStale, "", later, 0},
		{"neither document nor tag", old, Update{}, ErrInvalid, "", later, 0},
		{"document that is to go at once", old, Update{Doc: doc("new"), Remove: true}, ErrInvalid, "", later, 0},
		{"too brief", nil, Update{Doc: doc("new"), Expires: 29 * time.Second}, ErrTooBrief, "", later, 0},
		{"negative", nil, Update{Doc: doc("new"), Expires: -1}, ErrTooBrief, "", later, 0},
		{"briefest", nil, Update{Doc: doc("new"), Expires: 30 * time.Second}, nil, "new", later, 30 * time.Second},
		{"longer than possible is shortened", nil, Update{Doc: doc("new"), Expires: 48 * time.Hour}, nil, "new", later, 24 * time.Hour},
		{"refresh at its expiry", old, Update{IfMatch: "e1", At: noon.Add(time.Hour)}, ErrStale, "", later, 0},
	} {
		u := c.u
		u.Source, u.ETag, u.Value = "pc", "e2", "new"
		if u.At.IsZero() {
			u.At = later
		}
		got, err := soft.Publish(c.old, u)
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
			continue
		}
		switch {
		case c.body == "" && got != nil:
			t.Errorf("%s: %+v, want nothing", c.name, got)
		case c.body == "" || got == nil:
			if c.body != "" {
				t.Errorf("%s: nothing, want %s", c.name, c.body)
			}
		case string(got.Doc.Body) != c.body || got.Value != c.body || got.ETag != "e2" ||
			!got.Published.Equal(c.published) || !got.Expires.Equal(u.At.Add(c.expires)):
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	if old.ETag != "e1" || !old.Expires.Equal(noon.Add(time.Hour)) || string(old.Doc.Body) != "old" {
		t.Errorf("the old publication was changed: %+v", old)
	}
}

// A connection that ends takes with it what was published on it and nothing
// else: neither what a later connection of the client published, nor what is
// bound to none. Told late or twice, it makes no difference.
func TestConnectionsEnd(t *testing.T) {
	pub := func(c Connection) *Publication {
		return &Publication{Source: "pc", Bound: c, Expires: noon.Add(time.Hour)}
	}
	at := noon.Add(time.Minute)
	first, second := Connection{"pc", 4}, Connection{"pc", 5}
	if p := pub(first).Lose(first, at); p.Live(at) || p.Expired(at) || !p.Lost.Equal(at) {
		t.Errorf("its own connection ended: %+v", p)
	}
	for name, p := range map[string]*Publication{
		"late, of the one before": pub(second).Lose(first, at),
		"not bound":               pub(Connection{}).Lose(first, at),
		"none ended":              pub(Connection{}).Lose(Connection{}, at),
		"another client's":        pub(Connection{"phone", 4}).Lose(first, at),
	} {
		if !p.Live(at) {
			t.Errorf("%s: lost", name)
		}
	}
	lost := pub(first).Lose(first, at)
	if again := lost.Lose(first, at.Add(time.Second)); !again.Lost.Equal(at) {
		t.Errorf("told twice: lost at %s", again.Lost)
	}
	if back, err := soft.Publish(lost, Update{Source: "pc", Doc: &Document{}, Bound: second, At: at}); err != nil || !back.Live(at) {
		t.Errorf("it came back: %+v, %v", back, err)
	}
}

// A publication ends at its expiry, not after it.
func TestExpiry(t *testing.T) {
	p := &Publication{Expires: noon}
	if before := noon.Add(-1); !p.Live(before) || p.Expired(before) || p.Live(noon) || !p.Expired(noon) {
		t.Error("expiry is half-open")
	}
	if forever := (&Publication{}); !forever.Live(noon.AddDate(100, 0, 0)) {
		t.Error("without an expiry it stays")
	}
}

// A refusal tells the sentinel, the reason and the place.
func TestRefusals(t *testing.T) {
	r := Refuse(ErrInvalid, ReasonDuplicateID, "/tuples/1/id", "t1 comes twice")
	if !errors.Is(r, ErrInvalid) || r.Error() != "invalid document: duplicate-id: /tuples/1/id: t1 comes twice" {
		t.Errorf("%v", r)
	}
	if err := RefuseJSON(ErrStale); err != ErrStale || RefuseJSON(nil) != nil {
		t.Error("other errors are returned as they are")
	}
	var set Dispositions
	if set = set.With(Failed).With(Delivered).With("nonsense"); !set.Has(Failed) || !set.Has(Delivered) || set.Has(Displayed) || set.Has("nonsense") {
		t.Errorf("%b", set)
	}
}
