package topic

// The functions of this file take valid filters and names, and of a shared
// subscription the rest that SplitShare returns. Other input does no harm: a
// '#' before the end, or a wildcard beside other characters, is taken for
// itself. They allocate nothing.

// Match says whether filter matches name. '+' stands for one level, empty
// ones included; a '#' at the end for any number of levels, none included, so
// that `a/#` matches `a` and `+/#` matches `a`. A wildcard in the first level
// never matches a name that begins with '$' (5 [MQTT-4.7.2-1]).
func Match(filter, name string) bool {
	if hidden(filter, name) {
		return false
	}
	n := 0
	for f := 0; f < len(filter); f++ {
		switch c := filter[f]; {
		case c == '+' && alone(filter, f):
			for n < len(name) && name[n] != '/' {
				n++
			}
		case c == '#' && f == len(filter)-1 && alone(filter, f):
			return true
		case n < len(name) && name[n] == c:
			n++
		default:
			return n == len(name) && filter[f:] == "/#"
		}
	}
	return n == len(name)
}

// Weight is as how many subscriptions one to filter counts where it is what they take in
// memory that is bounded: one more for each 128 bytes.
func Weight(filter string) int { return 1 + len(filter)/bytesPerWeight }

// freeLevels is how many levels a filter may have that costs nothing in DeepLevels.
const freeLevels = 8

// DeepLevels is what a filter adds to the work that one look-up in an Index may cause, beside
// what is bounded whatever there is. A look-up goes two ways at each level, by '+' and by the
// name's own: so all filters of up to eight levels together cost it 511 steps, and those with
// one '+', or none, half the square of their levels. Others cost it, at worst, each its levels.
func DeepLevels(filter string) int {
	if len(filter) <= 2*freeLevels || Levels(filter) <= freeLevels {
		return 0
	}
	plus := 0
	for at := 0; at <= len(filter); {
		level, next := levelAt(filter, at)
		if level == "+" {
			plus++
		}
		at = next
	}
	if plus < 2 {
		return 0
	}
	return Levels(filter)
}

// alone says whether the byte at i is a level of its own.
func alone(s string, i int) bool {
	return (i == 0 || s[i-1] == '/') && (i == len(s)-1 || s[i+1] == '/')
}

// Covers says whether outer matches every name that inner matches.
func Covers(outer, inner string) bool {
	if hidden(outer, inner) {
		return false
	}
	inner = spell(inner)
	for o, i := 0, 0; ; {
		over, nextO := levelAt(outer, o)
		if over == "#" && nextO > len(outer) {
			return true
		}
		if i > len(inner) {
			return false
		}
		under, nextI := levelAt(inner, i)
		if under == "#" && nextI > len(inner) {
			return false // inner matches what ends here, outer wants more
		}
		if over != under && over != "+" {
			return false
		}
		if nextO > len(outer) {
			return nextI > len(inner)
		}
		o, i = nextO, nextI
	}
}

// Overlaps says whether some name matches both a and b.
func Overlaps(a, b string) bool {
	if hidden(a, b) || hidden(b, a) {
		return false
	}
	a, b = spell(a), spell(b)
	for i, j := 0, 0; ; {
		// Up to here they agree. Where one ends, the other may only go on
		// with a '#', which stands for no level too.
		endA, endB := i > len(a), j > len(b)
		if endA && endB {
			return true
		}
		var x, y string
		nextA, nextB := i, j
		if !endA {
			if x, nextA = levelAt(a, i); x == "#" && nextA > len(a) {
				return true
			}
		}
		if !endB {
			if y, nextB = levelAt(b, j); y == "#" && nextB > len(b) {
				return true
			}
		}
		if endA || endB || x != y && x != "+" && y != "+" {
			return false
		}
		i, j = nextA, nextB
	}
}

// HasWildcard says whether filter may match more than one name: whether a
// level is '+', or the last one '#'.
func HasWildcard(filter string) bool {
	for at := 0; at <= len(filter); {
		level, next := levelAt(filter, at)
		if level == "+" || level == "#" && next > len(filter) {
			return true
		}
		at = next
	}
	return false
}

// spell returns the filter that matches the same names as filter and whose '#'
// may stand for no level. That is filter, but where no level would leave no
// name: every name has a first level, and if that is empty, a second one.
func spell(filter string) string {
	switch filter {
	case "#":
		return "+/#"
	case "/#":
		return "/+/#"
	}
	return filter
}

// hidden says whether filter's first level is a wildcard and other's begins
// with '$': such names are seen only by who asks for them.
func hidden(filter, other string) bool {
	if len(other) == 0 || other[0] != '$' {
		return false
	}
	level, next := levelAt(filter, 0)
	return level == "+" || level == "#" && next > len(filter)
}
