package secret

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

func numbered() Secret {
	s := make(Secret, Size)
	for i := range s {
		s[i] = byte(i)
	}
	return s
}

// A key is the same for ever, and another for each purpose and each cluster.
func TestDerive(t *testing.T) {
	// By another implementation: printf 'bellwire key 1\0entity tags' |
	//   openssl mac -digest SHA256 -macopt hexkey:000102…1f HMAC
	const want = "e5ddc65f63c9b5850171fc33d718c502efc635386508decef9049ba758d96944"
	key := numbered().Derive("entity tags")
	if got := hex.EncodeToString(key[:]); got != want {
		t.Errorf("the key is %s, want %s", got, want)
	}
	other := numbered()
	other[31]++
	seen := map[[32]byte]string{}
	for _, s := range []Secret{numbered(), other} {
		for _, purpose := range []string{"entity tags", "entity tag", "", "ids"} {
			k, name := s.Derive(purpose), fmt.Sprintf("%d %q", s[31], purpose)
			if was, twice := seen[k]; twice {
				t.Errorf("%s and %s have one key", was, name)
			}
			seen[k] = name
		}
	}
}

// A name is the same for ever, and another for each purpose, cluster and number; it
// shows neither how large the numbers are nor which is the greater.
func TestName(t *testing.T) {
	// As in TestDerive, of 'bellwire name 1\0entity tag\0' and the number's 8 bytes; its first 15 bytes in base32hex.
	const want = "haojdc24356p7bnfh0br1vd6"
	if got := numbered().Name("entity tag", 258); got != want {
		t.Errorf("the name is %s, want %s", got, want)
	}
	other := numbered()
	other[0]++
	seen := map[string]bool{other.Name("entity tag", 258): true, numbered().Name("entity tags", 258): true, numbered().Name("entity tag"): true, numbered().Name("entity tag", 258, 0): true}
	greater, most := 0, 1000
	for n := range most {
		name, next := numbered().Name("entity tag", uint64(n)), numbered().Name("entity tag", uint64(n+1))
		if len(name) != NameLen || seen[name] || strings.Trim(name, "0123456789abcdefghijklmnopqrstuv") != "" {
			t.Errorf("the name of %d is %q", n, name)
		}
		seen[name] = true
		if next > name {
			greater++
		}
	}
	if greater < most*2/5 || greater > most*3/5 {
		t.Errorf("%d of %d names are greater than that of the number before", greater, most)
	}
}

// Nothing is derived of nothing, or of a part of a secret.
func TestDeriveWantsASecret(t *testing.T) {
	for _, s := range []Secret{nil, {}, numbered()[1:], append(numbered(), 0)} {
		for what, make := range map[string]func(){"a key": func() { s.Derive("entity tags") }, "a name": func() { s.Name("entity tag", 1) }} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s is derived of %d bytes", what, len(s))
					}
				}()
				make()
			}()
		}
	}
}

// No two clusters draw the same.
func TestNew(t *testing.T) {
	a, b := New(), New()
	if len(a) != Size || bytes.Equal(a, b) || slices.Max(a) == 0 {
		t.Errorf("drew %d bytes, twice the same: %v", len(a), bytes.Equal(a, b))
	}
}

// Whatever a secret is printed with, or as a part of what, no byte of it shows.
func TestSecretIsNotShown(t *testing.T) {
	type holder struct{ Secret Secret }
	s := numbered()
	var text, lines bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("x", "secret", s, "in", holder{s})
	slog.New(slog.NewJSONHandler(&lines, nil)).Info("x", "secret", s, "in", holder{s})
	coded, err := json.Marshal(holder{s})
	if err != nil {
		t.Fatal(err)
	}
	shown := []string{text.String(), lines.String(), string(coded)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		shown = append(shown, fmt.Sprintf(verb, s), fmt.Sprintf(verb, holder{s}), fmt.Sprintf(verb, &holder{s}))
	}
	for _, is := range shown {
		if !strings.Contains(is, hidden) {
			t.Errorf("%q does not say that something is hidden", is)
		}
		for _, part := range []string{"010203", "1, 2, 3", "1 2 3", "AQID", "0x1, 0x2", `\x01\x02`} {
			if strings.Contains(strings.ToLower(is), part) || strings.Contains(is, part) {
				t.Errorf("%q has bytes of the secret", is)
			}
		}
	}
}

func BenchmarkDerive(b *testing.B) {
	s := numbered()
	b.ReportAllocs()
	for b.Loop() {
		s.Derive("entity tags")
	}
}
