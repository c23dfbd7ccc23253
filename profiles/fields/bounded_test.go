package fields

import "testing"

// Numbers within their bounds are read as they were written; anything else is refused by
// the name of what is wrong.
func TestBounded(t *testing.T) {
	var a, b int
	all := []Bounded{{"apples", &a, 5}, {"pears", &b, 1 << 20}}
	for _, x := range []struct {
		data []byte
		want string
	}{
		{AppendBounded(nil, []Bounded{{"", ptr(5), 0}, {"", ptr(1 << 20), 0}}), ""},
		{[]byte{1, 1}, ""},
		{nil, "apples: cut short"},
		{[]byte{1}, "pears: cut short"},
		{[]byte{1, 0x80}, "pears: cut short"},
		{[]byte{0, 1}, "apples: 0, want 1 to 5"},
		{[]byte{6, 1}, "apples: 6, want 1 to 5"},
		{[]byte{1, 1, 1}, "something follows"},
	} {
		got := ""
		if err := ReadBounded(x.data, all); err != nil {
			got = err.Error()
		}
		if got != x.want {
			t.Errorf("%v: %q, want %q", x.data, got, x.want)
		}
	}
	if a, b = 0, 0; ReadBounded(AppendBounded(nil, []Bounded{{"", ptr(3), 0}, {"", ptr(300), 0}}), all) != nil || a != 3 || b != 300 {
		t.Errorf("read %d, %d", a, b)
	}
}

func ptr(n int) *int { return &n }
