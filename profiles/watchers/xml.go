package watchers

import (
	"strconv"
	"time"

	"github.com/bellwire/bellwire/profiles/xmltree"
)

// The namespace of watcher information (RFC 3858 section 4).
const xmlSpace = "urn:ietf:params:xml:ns:watcherinfo"

// XML writes the list as RFC 3858 has it, as many rows as JSON would at most. What that
// does not know is left out: of who fetches, which it calls a subscription that
// timed out at once, how often.
func (l *List) XML() []byte {
	state := "partial"
	if l.Full {
		state = "full"
	}
	list := &xmltree.Element{Space: xmlSpace, Local: "watcher-list", Attrs: []xmltree.Attr{
		{Local: "resource", Value: l.Of.URI(l.Scheme)}, {Local: "package", Value: l.Kind},
	}}
	size := 0
	for i := range l.Rows {
		e := l.Rows[i].element(l.Scheme, l.At)
		if size += len(e.Append(nil)); i == MaxRows || size > MaxBytes {
			break
		}
		list.Nodes = append(list.Nodes, xmltree.Node{Element: e})
	}
	root := &xmltree.Element{Space: xmlSpace, Local: "watcherinfo", Attrs: []xmltree.Attr{
		{Local: "version", Value: strconv.FormatUint(l.Version, 10)}, {Local: "state", Value: state},
	}, Nodes: []xmltree.Node{{Element: list}}}
	return root.Append(nil)
}

// events are those that RFC 3858 has.
var events = map[string]bool{
	"subscribe": true, "approved": true, "deactivated": true, "probation": true, "rejected": true, "timeout": true, "giveup": true, "noresource": true,
}

func (r *Row) element(scheme string, at time.Time) *xmltree.Element {
	status, event := r.Status, r.Event
	if !events[event] {
		event = "timeout"
	}
	e := &xmltree.Element{Space: xmlSpace, Local: "watcher", Nodes: []xmltree.Node{{Text: r.uri(scheme)}}, Attrs: []xmltree.Attr{
		{Local: "id", Value: r.ID}, {Local: "status", Value: string(status)}, {Local: "event", Value: event},
	}}
	seconds := func(name string, n int64) {
		e.Attrs = append(e.Attrs, xmltree.Attr{Local: name, Value: strconv.FormatInt(n, 10)})
	}
	if !r.Since.IsZero() {
		seconds("duration-subscribed", max(0, int64(at.Sub(r.Since)/time.Second)))
	}
	if !r.Expires.IsZero() {
		seconds("expiration", r.remaining(at))
	}
	if r.Name != "" {
		e.Attrs = append(e.Attrs, xmltree.Attr{Local: "display-name", Value: r.Name})
	}
	return e
}
