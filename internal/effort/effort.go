// Package effort says how much a test is to try: a few rounds in every run, many
// when soaking, and fewer under the race detector, which makes everything ten
// times slower and finds nothing in the second round of one goroutine that it
// has not found in the first.
//
// # Soaking
//
// A soak is one run that ends: `make soak SOAK=3h`. Tests that try many seeds, or
// make the same fault turn after turn, are listed in Tests. Such a test goes on
// until its share of the time is over, and as often as its line says at least,
// whatever the time. What holds:
//
//   - A seed is one history. The time decides how many seeds are tried and never what
//     one of them is: sizes differ between soaking and not, and by nothing else.
//   - Seeds are tried in their order, without gaps, from the first on; a test tells
//     the first and the last. So the next run begins where this one ended.
//   - What failed is run again without a clock: the command that a failure prints
//     names the one seed, and the seed alone decides. (Turns are another matter: they
//     are of real processes, which are not the same twice. Their faults are drawn
//     from the first seed.)
//   - After some seeds that failed a test gives up, for the rest would fail likewise.
//   - A test that is not listed, or is listed and tries nothing, is a fault, not a
//     test that soaks for no time.
//
// The time of a test is real time, also where what it tries lives in a bubble, and
// is not read but waited for: no seed sees a clock of this package.
//
// # Environment
//
// BELLWIRE_SOAK is the time of each listed test that is run, such as 10m; set, it also
// chooses the long variants of all tests. BELLWIRE_SEEDS is what to try: 1680 for one
// seed, 501-1000 for those, 501- for as many from there on as are due.
package effort

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	soakVariable  = "BELLWIRE_SOAK"
	seedsVariable = "BELLWIRE_SEEDS"
)

// soak is what BELLWIRE_SOAK says, 0 for nothing; given what BELLWIRE_SEEDS says.
var soak, given = fromEnvironment()

func fromEnvironment() (time.Duration, span) {
	soak, err := parseSoak(os.Getenv(soakVariable))
	if err != nil {
		panic(err)
	}
	given, err := ParseSeeds(os.Getenv(seedsVariable))
	if err != nil {
		panic(err)
	}
	return soak, given
}

func parseSoak(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%s=%s: want how long each test that soaks is to go on, such as 10m", soakVariable, s)
	}
	return d, nil
}

// A span is a range of seeds: those from first to last.
type span struct {
	first, last uint64
	exact       bool // it was said which: neither time nor table count
}

// ParseSeeds reads what BELLWIRE_SEEDS may say. Nothing means from 1 on.
func ParseSeeds(s string) (span, error) {
	from, to, isRange := strings.Cut(s, "-")
	all := span{first: 1, last: math.MaxUint64}
	var err error
	if s != "" {
		all.first, err = strconv.ParseUint(from, 10, 64)
	}
	switch {
	case err != nil || s == "" || isRange && to == "":
	case isRange:
		all.exact = true
		all.last, err = strconv.ParseUint(to, 10, 64)
	default:
		all.exact, all.last = true, all.first
	}
	if err != nil || all.last < all.first {
		return span{}, fmt.Errorf("%s=%s: want a number, or two with a hyphen between them, ascending, or the first with a hyphen", seedsVariable, s)
	}
	return all, nil
}

// Soaking says whether the long variants of the tests are wanted.
func Soaking() bool { return soak > 0 }

// First returns the seed that this run begins with: 1, unless BELLWIRE_SEEDS says
// otherwise.
func First() uint64 { return given.first }

// Rounds returns short, or long when soaking.
func Rounds(short, long int) int {
	if Soaking() {
		return long
	}
	return short
}

// RoundsOfOne is Rounds for a test whose rounds run in one goroutine: under the
// race detector it returns race.
func RoundsOfOne(race, short, long int) int {
	if underRace && !Soaking() {
		return race
	}
	return Rounds(short, long)
}
