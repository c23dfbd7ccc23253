// Package effort says how much a test is to try: a few rounds in every run, many
// when soaking, and fewer under the race detector, which makes everything ten
// times slower and finds nothing in the second round of one goroutine that it
// has not found in the first.
package effort

import "os"

// Soaking says whether the long variants of the tests are wanted: BELLWIRE_SOAK=1,
// as `make soak` sets it.
func Soaking() bool { return os.Getenv("BELLWIRE_SOAK") == "1" }

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
