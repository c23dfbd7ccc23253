package im

import (
	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
)

// Report writes application/evt-imdn+json.
func (*Kind) Report(m kind.Message, what kind.Disposition, reason string) kind.Document {
	var w jsontree.Writer
	w.Open('{')
	w.Member("id", m.ID)
	w.Member("recipient", m.To.URI("im"))
	writeTime(&w, "datetime", m.Sent)
	w.Member("disposition", string(what))
	writeText(&w, "reason", reason)
	w.Close('}')
	return kind.Document{ContentType: TypeReport, Body: w.Bytes()}
}

// ReadReport reads what Report writes, from a device that has a message. It
// cannot say that the message failed: it has it.
func (*Kind) ReadReport(r kind.Resource, from kind.Addr, doc kind.Document) (kind.Receipt, error) {
	receipt := kind.Receipt{From: from, To: r.Addr}
	if err := checkSize(doc); err != nil {
		return receipt, err
	}
	if typeOf(doc, TypeReport) != TypeReport {
		return receipt, kind.Refuse(kind.ErrUnsupported, kind.ReasonUnsupported, "", "reports are sent as "+TypeReport)
	}
	tree, err := parse(doc)
	if err != nil {
		return receipt, err
	}
	m := tree.Root().Members()
	receipt.ID = readID(m.Need("id"))
	receipt.Recipient = readAddr(m.Take("recipient"))
	receipt.Sent = m.Take("datetime").Time()
	receipt.What = kind.Disposition(m.Need("disposition").OneOf("delivered", "displayed", "processed"))
	for _, rest := range m.Rest() {
		if rest.Name() == "wants" {
			rest.Fault("a report is never reported on (RFC 5438 section 7)")
		} else {
			rest.Fault(`not known here: a report has "id", "recipient", "datetime" and "disposition"`)
		}
	}
	if err := tree.Err(); err != nil {
		return receipt, kind.RefuseJSON(err)
	}
	return receipt, nil
}
