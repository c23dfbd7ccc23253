package broker

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
)

// Cursors say where a list of resources goes on. The place may be a resource
// that the asker may not know of, so what they get is sealed; and it is good for
// one asker and one filter, so that nobody can choose a place: whether there is
// more after a name of one's own choice tells of what is hidden there. The key
// is this process's own.
type cursors struct{ aead cipher.AEAD }

// cursorPad is to what length, or a multiple of it, names are filled up before
// they are sealed: their length tells of them, too. It is that of the longest
// address (1,023) below a profile's prefix.
const cursorPad = 1088

func newCursors() (cursors, error) {
	key := make([]byte, 32)
	rand.Read(key) // never fails
	block, err := aes.NewCipher(key)
	if err != nil {
		return cursors{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return cursors{aead}, err
}

// bound is what a cursor is good for. No filter has a NUL.
func bound(who Who, filter string) []byte { return []byte(filter + "\x00" + who.Principal) }

func (c cursors) seal(who Who, filter, name string) string {
	if name == "" {
		return ""
	}
	padded := make([]byte, (len(name)+cursorPad-1)/cursorPad*cursorPad)
	copy(padded, name)
	return base64.RawURLEncoding.EncodeToString(c.aead.Seal(nil, nil, padded, bound(who, filter)))
}

// open returns the name in a cursor, empty for an empty one.
func (c cursors) open(who Who, filter, cursor string) (name string, err error) {
	if cursor == "" {
		return "", nil
	}
	sealed, err := base64.RawURLEncoding.DecodeString(cursor)
	if err == nil {
		var padded []byte
		if padded, err = c.aead.Open(nil, nil, sealed, bound(who, filter)); err == nil {
			return string(bytes.TrimRight(padded, "\x00")), nil
		}
	}
	return "", &Refusal{Cause: ErrTopicName, Reason: "after: no page of this list that you were given ended here, or the server was started anew since: begin without it"}
}
