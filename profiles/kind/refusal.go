package kind

import (
	"errors"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/xmltree"
)

// Why something was not accepted, told by errors.Is. It is always the
// client's doing: the same will be refused again. The comments say what the
// client is told (PUBACK or SUBACK code; HTTP status).
var (
	// ErrInvalid means the document is not what its type says. 0x99; 422.
	ErrInvalid = errors.New("invalid document")

	// ErrUnsupported means a type of document, or a part of one, that is not
	// understood here. 0x99; 415.
	ErrUnsupported = errors.New("unsupported type")

	// ErrTooBig means that a limit was passed: bytes, depth, members. 0x99
	// with reason too-large, for 0x95 is no PUBACK code; 413.
	ErrTooBig = errors.New("document too large")

	// ErrAddress means a topic or address that is spelt wrong. 0x90; 400.
	ErrAddress = errors.New("bad address")

	// ErrStale means that the entity tag named is not the present one: start
	// anew with a whole document. 0x83 with reason stale-etag; 412.
	ErrStale = errors.New("no such entity tag")

	// ErrTooBrief means an expiry below the kind's minimum. 0x83 with reason
	// min-expires; 423.
	ErrTooBrief = errors.New("expiry below minimum")

	// ErrForbidden means that the sender may not do this. 0x87; 403.
	ErrForbidden = errors.New("not authorized")

	// ErrLoop means that a message went through too many hands. 0x83 with
	// reason loop; 508.
	ErrLoop = errors.New("hop count exhausted")
)

// Reasons of refusals: tokens that a client is told with the code.
const (
	ReasonSchema         = "schema"          // the document does not have the form its type has
	ReasonDuplicateID    = "duplicate-id"    // two elements have one id
	ReasonEntityMismatch = "entity-mismatch" // the document is about another address
	ReasonFromMismatch   = "from-mismatch"   // the message says it is from somebody else
	ReasonDTD            = "dtd-forbidden"   // an XML document with a DOCTYPE
	ReasonNamespace      = "namespace"       // an XML document whose root is in another namespace
	ReasonCPIM           = "cpim-syntax"     // not a message/cpim
	ReasonTooLarge       = "too-large"
	ReasonUnsupported    = "unsupported"
)

// A Refusal is an error that says what is wrong with a document, where, and
// what to write instead. It wraps one of the sentinels above.
type Refusal struct {
	Err    error           // the sentinel
	Reason string          // a token: "duplicate-id"
	Faults jsontree.Faults // at least one; the first is in Error
	Bound  string          // the name of the bound that was passed, such as BoundBytes; empty for none
}

func (r *Refusal) Error() string { return r.Err.Error() + ": " + r.Reason + ": " + r.Faults.Error() }

func (r *Refusal) Unwrap() error { return r.Err }

// Refuse returns a Refusal with one fault. pointer may be empty.
func Refuse(err error, reason, pointer, what string) *Refusal {
	return &Refusal{Err: err, Reason: reason, Faults: jsontree.Faults{{Pointer: pointer, What: what}}}
}

// RefuseJSON makes a Refusal of the faults of a JSON document: ErrTooBig if a
// limit was passed, else ErrInvalid with the first reason a fault has, schema
// if none does. Other errors, and nil, are returned as they are.
func RefuseJSON(err error) error {
	faults, ok := errors.AsType[jsontree.Faults](err)
	if !ok {
		return err
	}
	r := &Refusal{Err: ErrInvalid, Reason: ReasonSchema, Faults: faults}
	if errors.Is(err, jsontree.ErrTooBig) {
		r.Err, r.Reason = ErrTooBig, ReasonTooLarge
	}
	for _, f := range faults {
		if f.Reason != "" {
			r.Reason = f.Reason
			break
		}
	}
	r.Bound = boundOf(err)
	return r
}

// RefusePast is RefuseJSON of a document that the caller knows to have passed a bound, if its name
// is not empty.
func RefusePast(bound string, err error) error {
	err = RefuseJSON(err)
	if r, ok := errors.AsType[*Refusal](err); ok && bound != "" {
		r.Bound = bound
	}
	return err
}

// RefuseXML makes a Refusal of what xmltree.Parse says of a document.
func RefuseXML(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, xmltree.ErrDTD):
		return Refuse(ErrInvalid, ReasonDTD, "", err.Error())
	case errors.Is(err, xmltree.ErrTooBig):
		r := Refuse(ErrTooBig, ReasonTooLarge, "", err.Error())
		r.Bound = boundOf(err)
		return r
	}
	return Refuse(ErrInvalid, ReasonSchema, "", err.Error())
}

// boundOf names the bound that a parser says was passed; empty if it says of none.
func boundOf(err error) string {
	for _, b := range [...]struct {
		err  error
		name string
	}{
		{jsontree.ErrTooDeep, BoundJSONDepth},
		{jsontree.ErrTooMany, BoundJSONMembers},
		{xmltree.ErrTooDeep, BoundXMLDepth},
		{xmltree.ErrTooMany, BoundXMLNodes},
		{jsontree.ErrTooBig, BoundBytes},
		{xmltree.ErrTooBig, BoundBytes},
	} {
		if errors.Is(err, b.err) {
			return b.name
		}
	}
	return ""
}
