package mqtt

import "fmt"

// A fault is what a client did wrong: the reason code that tells it so, and
// why, for its developer. It ends the connection.
type fault struct {
	code byte
	why  string
}

func (f *fault) Error() string {
	return fmt.Sprintf("%s (0x%02X): %s", codeName(f.code), f.code, f.why)
}

func malformed(why string) error     { return &fault{codeMalformed, why} }
func protocolError(why string) error { return &fault{codeProtocolError, why} }
