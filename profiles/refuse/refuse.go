// Package refuse says in the broker's words what the packages of kinds refuse
// in theirs.
package refuse

import (
	"errors"
	"fmt"
	"strings"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
)

// causes say which of the broker's refusals one of a kind is.
var causes = []struct{ err, cause error }{
	{kind.ErrInvalid, broker.ErrPayload},
	{kind.ErrUnsupported, broker.ErrPayload},
	{kind.ErrTooBig, broker.ErrPayload},
	{kind.ErrAddress, broker.ErrTopicName},
	{kind.ErrStale, broker.ErrCondition},
	{kind.ErrTooBrief, broker.ErrCondition},
	{kind.ErrLoop, broker.ErrCondition},
	{kind.ErrForbidden, nil},
}

// Told makes of a kind's error the broker's, which says which reason code
// the client is told. What the error says after its sentinel begins with a
// token where there is one for programs to read.
func Told(err error) error {
	for _, c := range causes {
		if !errors.Is(err, c.err) {
			continue
		}
		r := &broker.Refusal{Cause: c.cause, Reason: strings.TrimPrefix(err.Error(), c.err.Error()+": ")}
		if doc, ok := errors.AsType[*kind.Refusal](err); ok {
			r.Reason = doc.Reason + ": " + allOf(doc.Faults)
		}
		return r
	}
	return err
}

// Admitted is Told of what Admit makes of a publication: of an error that says which bound was
// passed that is counted.
func Admitted(pub *broker.Publication, err error) error {
	if doc, ok := errors.AsType[*kind.Refusal](err); ok && doc.Bound != "" {
		pub.Over(doc.Bound)
	}
	return Told(err)
}

// mostSaid bounds what is said of faults, in bytes: it has to fit into the
// packets of small clients.
const mostSaid = 1000

// allOf words all faults, each with its place, as far as there is room.
func allOf(faults jsontree.Faults) string {
	var b strings.Builder
	for i, f := range faults {
		text := f.String()
		if i > 0 && b.Len()+len(text) > mostSaid {
			fmt.Fprintf(&b, " (and %d more)", len(faults)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(text)
	}
	return b.String()
}
