package state

import (
	"errors"
	"strings"

	"github.com/bellwire/bellwire/broker"
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

// refused makes of a kind's error the broker's, which says which reason code
// the client is told. What the error says after its sentinel begins with a
// token where there is one for programs to read.
func refused(err error) error {
	for _, c := range causes {
		if errors.Is(err, c.err) {
			return &broker.Refusal{Cause: c.cause, Reason: strings.TrimPrefix(err.Error(), c.err.Error()+": ")}
		}
	}
	return err
}
