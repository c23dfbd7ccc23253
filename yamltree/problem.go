package yamltree

import (
	"fmt"

	"github.com/bellwire/bellwire/internal/nearest"
)

// A Problem is what is wrong with one value, by who reads values. Who knows
// where the value stands makes a Fault of it (Reader.Report).
type Problem struct {
	What string // what is wrong, and why
	Todo string // what to write instead; may be empty
}

// Problemf returns a Problem without advice.
func Problemf(format string, args ...any) *Problem {
	return &Problem{What: fmt.Sprintf(format, args...)}
}

// Hint sets the advice, and returns p.
func (p *Problem) Hint(format string, args ...any) *Problem {
	p.Todo = fmt.Sprintf(format, args...)
	return p
}

// Near makes the likeliest of names the advice, or otherwise if none is near
// to word, and returns p.
func (p *Problem) Near(word string, names []string, otherwise string) *Problem {
	if name := nearest.Name(word, names); name != "" {
		return p.Hint("did you mean %q?", name)
	}
	return p.Hint("%s", otherwise)
}

// Error is the problem and the advice on one line.
func (p *Problem) Error() string {
	if p.Todo == "" {
		return p.What
	}
	return p.What + ": " + p.Todo
}
