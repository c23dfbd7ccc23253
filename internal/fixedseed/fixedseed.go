// Package fixedseed makes property tests draw the same every time, so that what
// passed on one machine passes on the next. A test package that uses rapid
// imports it for that alone:
//
//	import _ "github.com/bellwire/bellwire/internal/fixedseed"
//
// When soaking they draw from the first seed of the run, and with -rapid.seed from
// that one. Under the race detector they draw a fifth as often: the draws of a property
// test run one after the other, in one goroutine.
package fixedseed

import (
	"flag"
	"strconv"

	_ "pgregory.net/rapid" // its flags are there before init below

	"github.com/bellwire/bellwire/internal/effort"
)

func init() {
	for name, value := range map[string]string{
		"rapid.seed":   strconv.FormatUint(effort.First(), 10),
		"rapid.checks": strconv.Itoa(effort.RoundsOfOne(20, 100, 100)),
	} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
}
