package topic

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestValid(t *testing.T) {
	deep := strings.Repeat("a/", Limit-1) + "a"
	long := strings.Repeat("a", MaxBytes)
	tests := []struct {
		s            string
		name, filter error
	}{
		{"a", nil, nil},
		{"/", nil, nil},
		{"a//b", nil, nil},
		{" ", nil, nil},
		{"$SYS/x", nil, nil},
		{"$", nil, nil},
		{"über/木/\U0001F600", nil, nil},
		{"\ufeffa", nil, nil}, // a byte order mark is a character like another
		{"", ErrEmpty, ErrEmpty},
		{long, nil, nil},
		{long + "a", ErrTooLong, ErrTooLong},
		{deep, nil, nil},
		{deep + "/", ErrTooDeep, ErrTooDeep},
		{deep[:len(deep)-1] + "#", ErrWildcard, nil},
		{deep + "/#", ErrWildcard, ErrTooDeep},

		{"a\x00", ErrMalformed, ErrMalformed},
		{"a\xff", ErrMalformed, ErrMalformed},
		{"a\xc0\x80", ErrMalformed, ErrMalformed},         // overlong NUL
		{"a\xed\xa0\x80", ErrMalformed, ErrMalformed},     // a surrogate
		{"a\xf4\x90\x80\x80", ErrMalformed, ErrMalformed}, // beyond U+10FFFF
		{"a\xe2\x82", ErrMalformed, ErrMalformed},         // cut
		{"\x01\x00", ErrMalformed, ErrMalformed},
		{"\u0080\xff", ErrMalformed, ErrMalformed},
		{"a\n", ErrCharacter, ErrCharacter},
		{"\x1b[2J", ErrCharacter, ErrCharacter},
		{"\x7f", ErrCharacter, ErrCharacter},
		{"\u009f", ErrCharacter, ErrCharacter},
		{"\u00a0", nil, nil},
		{"\ufdd0", ErrCharacter, ErrCharacter},
		{"\ufdf0", nil, nil},
		{"\ufffe", ErrCharacter, ErrCharacter},
		{"\uffff", ErrCharacter, ErrCharacter},
		{"\ufffd", nil, nil},
		{"\U0010ffff", ErrCharacter, ErrCharacter},
		{"\U0001fffd", nil, nil},

		{"#", ErrWildcard, nil},
		{"+", ErrWildcard, nil},
		{"+/#", ErrWildcard, nil},
		{"/+", ErrWildcard, nil},
		{"+/", ErrWildcard, nil},
		{"a/+/b", ErrWildcard, nil},
		{"a/#", ErrWildcard, nil},
		{"$SYS/#", ErrWildcard, nil},
		{"a/#/b", ErrWildcard, ErrPosition},
		{"#/", ErrWildcard, ErrPosition},
		{"a+", ErrWildcard, ErrPosition},
		{"+a/b", ErrWildcard, ErrPosition},
		{"a/b#", ErrWildcard, ErrPosition},
		{"a/#b", ErrWildcard, ErrPosition},
		{"##", ErrWildcard, ErrPosition},
		{"++", ErrWildcard, ErrPosition},
		{"+#", ErrWildcard, ErrPosition},

		{"$share", ErrShare, ErrShare},
		{"$share/", ErrShare, ErrShare},
		{"$share/g", ErrShare, ErrShare},
		{"$share/g/", ErrShare, ErrShare},
		{"$share//a", ErrShare, ErrShare},
		{"$share/g+/a", ErrWildcard, ErrShare},
		{"$share/#/a", ErrWildcard, ErrShare},
		{"$share/g/a", ErrShare, nil},
		{"$share/g//", ErrShare, nil},
		{"$share/g/#", ErrWildcard, nil},
		{"$share/g/a/#/b", ErrWildcard, ErrPosition},
		{"$share/g/$SYS/a", ErrShare, nil},
		{"$share/g/$share/h/a", ErrShare, ErrShare},
		{"$share/g/" + deep, ErrShare, nil},
		{"$share/g/" + deep + "/", ErrShare, ErrTooDeep},
		{"$shared/g", nil, nil},
		{"a/$share/g", nil, nil},
	}
	for _, tt := range tests {
		if got := ValidName(tt.s); !errors.Is(got, tt.name) {
			t.Errorf("ValidName(%.20q) = %v, want %v", tt.s, got, tt.name)
		}
		if got := ValidFilter(tt.s); !errors.Is(got, tt.filter) {
			t.Errorf("ValidFilter(%.20q) = %v, want %v", tt.s, got, tt.filter)
		}
	}
}

func TestSplitShare(t *testing.T) {
	tests := []struct {
		filter, group, rest string
		shared              bool
		err                 error
	}{
		{"a/b", "", "a/b", false, nil},
		{"$SYS/#", "", "$SYS/#", false, nil},
		{"$shared/g/a", "", "$shared/g/a", false, nil},
		{"$share/g/a/b", "g", "a/b", true, nil},
		{"$share/g/#", "g", "#", true, nil},
		{"$share/g//", "g", "/", true, nil},
		{"$share/ü/$SYS", "ü", "$SYS", true, nil},
		{"$share", "", "", false, ErrShare},
		{"$share/", "", "", false, ErrShare},
		{"$share/g", "", "", false, ErrShare},
		{"$share/g/", "", "", false, ErrShare},
		{"$share//a", "", "", false, ErrShare},
		{"$share/+/a", "", "", false, ErrShare},
		{"$share/g#/a", "", "", false, ErrShare},
	}
	for _, tt := range tests {
		group, rest, shared, err := SplitShare(tt.filter)
		if group != tt.group || rest != tt.rest || shared != tt.shared || !errors.Is(err, tt.err) {
			t.Errorf("SplitShare(%q) = %q, %q, %v, %v; want %q, %q, %v, %v",
				tt.filter, group, rest, shared, err, tt.group, tt.rest, tt.shared, tt.err)
		}
	}
}

// ValidName and ValidFilter say the same as a slow reading of the standard,
// level by level and rune by rune.
func FuzzValid(f *testing.F) {
	for _, s := range []string{
		"a/b", "a/+/#", "#/a", "a+", "$share/g/a", "$share//a", "$share/g/$share/h/a", "\ufffe", "\x00", "\xff", "a\x01",
		strings.Repeat("/", Limit), "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := ValidName(s) == nil, dumbValid(s, false); got != want {
			t.Errorf("ValidName(%q) = %v, the dumb check says %v", s, ValidName(s), want)
		}
		if got, want := ValidFilter(s) == nil, dumbValid(s, true); got != want {
			t.Errorf("ValidFilter(%q) = %v, the dumb check says %v", s, ValidFilter(s), want)
		}
	})
}

func dumbValid(s string, filter bool) bool {
	if s == "" || len(s) > 65535 {
		return false
	}
	for i, r := range s {
		if r == utf8.RuneError && !strings.HasPrefix(s[i:], "\ufffd") {
			return false
		}
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r >= 0xfdd0 && r < 0xfdf0 || r&0xffff >= 0xfffe {
			return false
		}
	}
	levels := strings.Split(s, "/")
	if levels[0] == "$share" {
		if !filter || len(levels) < 3 || levels[1] == "" || strings.ContainsAny(levels[1], "+#") || levels[2] == "$share" {
			return false
		}
		if levels = levels[2:]; len(levels) == 1 && levels[0] == "" {
			return false
		}
	}
	for i, l := range levels {
		if strings.ContainsAny(l, "+#") && (!filter || l != "+" && (l != "#" || i < len(levels)-1)) {
			return false
		}
	}
	return len(levels) <= 128
}
