package broker

import "testing"

// Room is made each five seconds for which a disk is nearly full and nobody fills it: not on one that
// is being filled, or is full, and never sooner.
func TestRoomIsMadeWhereNobodyTakesIt(t *testing.T) {
	const mark = 800
	for name, c := range map[string]struct {
		free []uint64
		at   []int // which of them
	}{
		"nearly full":         {[]uint64{700, 700, 690, 680, 690, 680, 680, 680, 680, 680, 680}, []int{4, 9}},
		"room enough":         {[]uint64{900, 900, 900, 900, 900, 900, 900, 900}, nil},
		"being filled":        {[]uint64{750, 600, 450, 300, 150, 40, 20, 10}, nil},
		"full":                {[]uint64{700, 500, 0, 0, 0, 0, 0, 0, 0}, nil},
		"filled, and left so": {[]uint64{750, 600, 450, 300, 20, 20, 20, 20, 20, 20}, []int{9}},
		"room in between":     {[]uint64{700, 700, 700, 900, 700, 700, 700, 700, 700}, nil},
	} {
		s, at := scarcity{before: mark}, c.at
		for i, free := range c.free {
			want := len(at) > 0 && at[0] == i
			if want {
				at = at[1:]
			}
			if got := s.mayGo(free, mark); got != want {
				t.Errorf("%s: after %d s: %v, want %v", name, i, got, want)
			}
		}
	}
}
