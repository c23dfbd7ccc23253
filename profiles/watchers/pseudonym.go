package watchers

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"strconv"
	"strings"

	"github.com/bellwire/bellwire/profiles/kind"
)

// A Secret makes pseudonyms and ids. It is the same on every node of a cluster for
// good, and known to nobody else: whoever had it could try out whose a pseudonym is.
type Secret []byte

// pseudonymPrefix begins the name of a pseudonym. Nobody else's name may begin so and
// be as long; see IsPseudonym.
const pseudonymPrefix = "p-"

// pseudonymBytes are what is kept of the hash: so many make 24 letters and digits.
const pseudonymBytes = 15

var letters = base32.StdEncoding.WithPadding(base32.NoPadding)

// Pseudonym returns the address by which target knows watcher, in watcher's domain.
// turn counts the fresh ones that she has asked for; the first is of turn 0.
func (s Secret) Pseudonym(watcher, target kind.Addr, turn uint64) kind.Addr {
	of := "pseud1\n" + watcher.String() + "\n" + target.String()
	if turn > 0 {
		of += "\n" + strconv.FormatUint(turn, 10)
	}
	return kind.Addr{Local: pseudonymPrefix + s.name(of, pseudonymBytes), Domain: watcher.Domain}
}

// IsPseudonym says whether an address looks like a pseudonym: whether it is
// somebody's, only the state knows.
func IsPseudonym(a kind.Addr) bool {
	name, ok := strings.CutPrefix(a.Local, pseudonymPrefix)
	if !ok || len(name) != letters.EncodedLen(pseudonymBytes) {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '2' || r > '7') })
}

// idBytes are what is kept of the hash that an id is: so many make 16 letters and
// digits.
const idBytes = 10

// ID returns the name that an owner's list has for a subscription which began at a
// place in the log: it stays while that lasts, and tells nothing. Who watches anew,
// or as somebody else, has another.
func (s Secret) ID(watcher, target kind.Addr, kindName string, begun uint64) string {
	return s.name("watch1\n"+kindName+"\n"+watcher.String()+"\n"+target.String()+"\n"+strconv.FormatUint(begun, 10), idBytes)
}

func (s Secret) name(of string, bytes int) string {
	h := hmac.New(sha256.New, s)
	h.Write([]byte(of))
	return strings.ToLower(letters.EncodeToString(h.Sum(nil)[:bytes]))
}
