// Package fixedseed makes property tests draw the same every time, so that what
// passed on one machine passes on the next. A test package that uses rapid
// imports it for that alone:
//
//	import _ "github.com/bellwire/bellwire/internal/fixedseed"
//
// With BELLWIRE_SOAK=1, and with -rapid.seed, they draw otherwise.
package fixedseed

import (
	"flag"

	_ "pgregory.net/rapid" // its flags are there before init below

	"github.com/bellwire/bellwire/internal/effort"
)

func init() {
	if effort.Soaking() {
		return
	}
	if err := flag.Set("rapid.seed", "1"); err != nil {
		panic(err)
	}
}
