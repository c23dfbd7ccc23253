package kind

import (
	"cmp"
	"fmt"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/xmltree"
)

// Bounds bound the documents that come in at one node. Zero of any field means the most.
//
// The most is a constant, for what was taken once is read for good, by all nodes, whenever it
// is applied, composed or shown: a bound that could be lowered there would take from owners
// what they have said, and one that could be raised would let one document take more of
// everybody's time than Weight and the bounds of a resource count on. So what a node is told
// is asked before the log (Document.Within, which Apply does not set): it is the node's own,
// and holds from then on for what is new.
type Bounds struct {
	Bytes       int // of a document; MaxDocument, and no more than the kind's own
	JSONDepth   int // of lists and objects inside each other; jsontree.MaxDepth
	JSONMembers int // of a document, not of a policy; jsontree.MaxMembers
	XMLDepth    int // of elements inside each other; MaxXMLDepth
	XMLNodes    int // MaxXMLNodes
	PolicyBytes int // of an owner's policy, and of a blocklist; MaxPolicy
	PolicyRules int // rules, limits and delegates, each; MaxRules
	Recipients  int // to whom a message says to be, and likewise of copies; MaxRecipients
	Reports     int // that the sender of a message may want; MaxReports
}

// The most that Bounds are.
const (
	MaxDocument   = 64 << 10
	MaxXMLDepth   = xmltree.MaxDepth
	MaxXMLNodes   = xmltree.MaxNodes
	MaxPolicy     = 64 << 10
	MaxRules      = 500
	MaxRecipients = 50
	MaxReports    = 4
)

// WithDefaults returns b with its zero fields replaced.
func (b Bounds) WithDefaults() Bounds {
	for _, f := range [...]struct {
		is   *int
		most int
	}{
		{&b.Bytes, MaxDocument},
		{&b.JSONDepth, jsontree.MaxDepth},
		{&b.JSONMembers, jsontree.MaxMembers},
		{&b.XMLDepth, MaxXMLDepth},
		{&b.XMLNodes, MaxXMLNodes},
		{&b.PolicyBytes, MaxPolicy},
		{&b.PolicyRules, MaxRules},
		{&b.Recipients, MaxRecipients},
		{&b.Reports, MaxReports},
	} {
		*f.is = cmp.Or(*f.is, f.most)
	}
	return b
}

// Names of bounds, by which it is counted how often each was passed (Refusal.Bound).
const (
	BoundBytes       = "document.bytes"
	BoundJSONDepth   = "json.depth"
	BoundJSONMembers = "json.members"
	BoundXMLDepth    = "xml.depth"
	BoundXMLNodes    = "xml.nodes"
	BoundPolicyBytes = "policy.bytes"
	BoundPolicyRules = "policy.rules"
	BoundRecipients  = "message.recipients"
	BoundReports     = "message.reports"
)

// Bounds are those that hold for the document.
func (d Document) Bounds() Bounds {
	if d.Within == nil {
		return Bounds{}.WithDefaults()
	}
	return d.Within.WithDefaults()
}

// JSON are the limits within which the document is read as JSON, once CheckSize has let it
// pass.
func (d Document) JSON() jsontree.Limits {
	b := d.Bounds()
	return jsontree.Limits{Depth: b.JSONDepth, Members: b.JSONMembers}
}

// XML are those within which it, or a part of it, is read as XML.
func (d Document) XML() xmltree.Limits {
	b := d.Bounds()
	return xmltree.Limits{Depth: b.XMLDepth, Nodes: b.XMLNodes}
}

// CheckSize refuses a document of more bytes than most, or than its bounds have. told says so,
// with %d for how many there may be.
func (d Document) CheckSize(most int, told string) error {
	if most = min(most, d.Bounds().Bytes); len(d.Body) <= most {
		return nil
	}
	r := Refuse(ErrTooBig, ReasonTooLarge, "", fmt.Sprintf(told, most))
	r.Bound = BoundBytes
	return r
}
