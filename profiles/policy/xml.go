package policy

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/xmltree"
)

// TypeXML is the media type of policies as RFC 4745, RFC 5025 and RFC 6772 write them.
const TypeXML = "application/auth-policy+xml"

const (
	nsCommon = "urn:ietf:params:xml:ns:common-policy"
	nsPres   = "urn:ietf:params:xml:ns:pres-rules"
)

// inXML are the permissions that RFC 5025 has an element for which is true or false.
var inXML = map[string]string{
	"activities": "provide-activities", "class": "provide-class", "deviceID": "provide-deviceID", "mood": "provide-mood", "placeIs": "provide-place-is",
	"placeType": "provide-place-type", "privacy": "provide-privacy", "relationship": "provide-relationship", "statusIcon": "provide-status-icon",
	"sphere": "provide-sphere", "timeOffset": "provide-time-offset", "note": "provide-note",
}

// components are the permissions that RFC 5025 has a set for, and what is in that.
var components = []struct{ permission, element, all string }{
	{"services", "provide-services", "all-services"}, {"persons", "provide-persons", "all-persons"}, {"devices", "provide-devices", "all-devices"},
}

// tokensXML are the ways in which those sets name something, by the prefix of tokens.
var tokensXML = []struct{ prefix, element string }{
	{"class:", "class"}, {"id:", "occurrence-id"}, {"deviceID:", "deviceID"}, {"uri:", "service-uri"}, {"", "service-uri-scheme"},
}

// FromXML makes a document of a ruleset in XML, for Check: what that says there is
// said in JSON. Warnings are what has no effect, each with its place, of which none
// shows more than is meant. The error is a *kind.Refusal with all faults.
func FromXML(data []byte) (document []byte, warnings jsontree.Faults, err error) {
	root, err := xmltree.Parse(data, xmltree.Limits{Bytes: MaxBytes, Nodes: maxMembers})
	if err != nil {
		return nil, nil, refusePast(kind.RefuseXML(err))
	}
	if !root.Is(nsCommon, "ruleset") {
		return nil, nil, kind.Refuse(kind.ErrInvalid, kind.ReasonNamespace, "/"+root.Local, "a policy is a ruleset of "+nsCommon)
	}
	var x importer
	var rules []jsontree.Value
	for i, e := range root.Elements() {
		at := fmt.Sprintf("/ruleset/rule[%d]", i+1)
		if !e.Is(nsCommon, "rule") {
			x.fault(at, "a ruleset has rules, this is a %s", e.Local)
			continue
		}
		rules = append(rules, x.rule(at, e))
	}
	if x.faults != nil {
		return nil, nil, &kind.Refusal{Err: kind.ErrInvalid, Reason: kind.ReasonSchema, Faults: x.faults}
	}
	doc := making{}
	doc.add("v", jsontree.OfInt(1))
	doc.add("rules", jsontree.OfList(rules...))
	return doc.value().Append(nil), x.warnings, nil
}

// IsXML says whether a content type is that of policies in XML.
func IsXML(contentType string) bool {
	name, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.TrimSpace(name), TypeXML)
}

// Document returns what an owner has published as their policy as the document that it is
// in JSON: itself, unless its content type says that it is XML. It depends on nothing else.
func Document(contentType string, published []byte) ([]byte, error) {
	if !IsXML(contentType) || len(published) == 0 {
		return published, nil
	}
	document, _, err := FromXML(published)
	return document, err
}

// A making is an object that is being made.
type making struct {
	names  []string
	values []jsontree.Value
}

func (m *making) add(name string, v jsontree.Value) {
	m.names, m.values = append(m.names, name), append(m.values, v)
}

func (m *making) value() jsontree.Value { return jsontree.OfObject(m.names, m.values) }

var yes = jsontree.OfBool(true)

// An importer reads rules in XML.
type importer struct{ faults, warnings jsontree.Faults }

func (x *importer) fault(at, format string, args ...any) {
	x.faults = append(x.faults, jsontree.Fault{Pointer: at, What: fmt.Sprintf(format, args...)})
}

func (x *importer) warn(at, format string, args ...any) {
	x.warnings = append(x.warnings, jsontree.Fault{Pointer: at, What: fmt.Sprintf(format, args...)})
}

func (x *importer) rule(at string, e *xmltree.Element) jsontree.Value {
	id, ok := e.Attr("", "id")
	if !ok {
		x.fault(at, "a rule has an id")
	}
	var m making
	acts := false
	m.add("id", jsontree.OfString(id))
	for _, part := range e.Elements() {
		at := at + "/" + part.Local
		switch {
		case part.Is(nsCommon, "conditions"):
			m.add("if", x.conditions(at, part))
		case part.Is(nsCommon, "actions"):
			m.add("then", x.actions(at, part, showsPlace(e)))
			acts = true
		case part.Is(nsCommon, "transformations"):
			m.add("show", x.shows(at, part))
		default:
			x.fault(at, "a rule has conditions, actions and transformations")
		}
	}
	if !acts && showsPlace(e) {
		m.add("then", x.actions(at, &xmltree.Element{}, true))
	}
	if len(slices.Compact(slices.Sorted(slices.Values(m.names)))) != len(m.names) {
		x.fault(at, "conditions, actions and transformations stand once in a rule")
	}
	return m.value()
}

func (x *importer) conditions(at string, e *xmltree.Element) jsontree.Value {
	var m making
	var spheres []string
	for _, c := range e.Elements() {
		at := at + "/" + c.Local
		switch {
		case slices.Contains(m.names, c.Local):
			x.fault(at, "it stands once among the conditions of a rule")
		case c.Is(nsCommon, "identity"):
			if len(c.Elements()) == 0 {
				x.warn(at, "an empty identity is as none: the rule is about anybody")
				continue
			}
			m.add("identity", x.identity(at, c))
		case c.Is(nsCommon, "sphere"):
			v, _ := c.Attr("", "value")
			spheres = append(spheres, strings.Fields(v)...)
		case c.Is(nsCommon, "validity"):
			m.add("validity", x.validity(at, c))
		default:
			x.warn(at, "this condition is not known here: the rule never holds")
			m.add("{"+c.Space+"}"+c.Local, yes)
		}
	}
	if spheres != nil {
		m.add("sphere", jsontree.OfStrings(spheres))
	}
	return m.value()
}

func (x *importer) identity(at string, e *xmltree.Element) jsontree.Value {
	var all []jsontree.Value
	for _, c := range e.Elements() {
		var entry making
		switch {
		case c.Is(nsCommon, "one"):
			id, _ := c.Attr("", "id")
			entry.add("one", jsontree.OfString(id))
			if len(c.Elements()) > 0 {
				x.fault(at+"/one", "what stands in one is not known here, and to pass over it could show more")
			}
		case c.Is(nsCommon, "many"):
			entry.add("many", x.many(at+"/many", c))
		default:
			x.fault(at+"/"+c.Local, "an identity has one and many")
			continue
		}
		all = append(all, entry.value())
	}
	return jsontree.OfList(all...)
}

func (x *importer) many(at string, e *xmltree.Element) jsontree.Value {
	var m making
	if d, ok := e.Attr("", "domain"); ok {
		m.add("domain", jsontree.OfString(d))
	}
	var except []jsontree.Value
	for _, c := range e.Elements() {
		if !c.Is(nsCommon, "except") {
			x.fault(at+"/"+c.Local, "in many stands except, and to pass over it could show more")
			continue
		}
		var one making
		for _, name := range []string{"id", "domain"} {
			if v, ok := c.Attr("", name); ok {
				one.add(name, jsontree.OfString(v))
			}
		}
		except = append(except, one.value())
	}
	if except != nil {
		m.add("except", jsontree.OfList(except...))
	}
	return m.value()
}

func (x *importer) validity(at string, e *xmltree.Element) jsontree.Value {
	var all []jsontree.Value
	var from string
	for i, c := range e.Elements() {
		text := strings.TrimSpace(c.Text())
		switch {
		case i%2 == 0 && c.Is(nsCommon, "from"):
			from = text
		case i%2 == 1 && c.Is(nsCommon, "until"):
			var m making
			m.add("from", jsontree.OfString(from))
			m.add("until", jsontree.OfString(text))
			all = append(all, m.value())
			from = ""
		default:
			x.fault(at, "a validity is from, until, from, until: this is %s", c.Local)
			return jsontree.OfList()
		}
	}
	if from != "" {
		x.fault(at, "a from without an until")
	}
	return jsontree.OfList(all...)
}

// actions reads what a rule does; allows says that it lets somebody in unless it says otherwise.
func (x *importer) actions(at string, e *xmltree.Element, allows bool) jsontree.Value {
	var m making
	for _, c := range e.Elements() {
		switch {
		case c.Is(nsPres, "sub-handling") && len(m.names) > 0:
			x.fault(at+"/sub-handling", "it stands once in a rule")
		case c.Is(nsPres, "sub-handling"):
			m.add("handling", jsontree.OfString(strings.TrimSpace(c.Text())))
		default:
			x.warn(at+"/"+c.Local, "not known here: it has no effect")
		}
	}
	if allows && len(m.names) == 0 {
		m.add("handling", jsontree.OfString(Allow.String()))
	}
	return m.value()
}

// shows reads transformations: a permission that is not known shows nothing.
func (x *importer) shows(at string, e *xmltree.Element) jsontree.Value {
	var m making
	var unknown []string
	for _, c := range e.Elements() {
		at, text := at+"/"+c.Local, strings.TrimSpace(c.Text())
		granted := text == "true" || text == "1"
		if isProvideLocation(c) {
			x.place(at, c, &m)
			continue
		}
		if c.Space != nsPres {
			x.warn(at, "not known here: it shows nothing")
			continue
		}
		if i := slices.IndexFunc(components, func(p struct{ permission, element, all string }) bool { return p.element == c.Local }); i >= 0 {
			m.add(components[i].permission, x.component(at, c, components[i].all))
			continue
		}
		switch c.Local {
		case "provide-all-attributes":
			m.add("all", yes)
		case "provide-user-input":
			if text == "false" {
				text = "none"
			}
			m.add("userInput", jsontree.OfString(text))
		case "provide-unknown-attribute":
			ns, _ := c.Attr("", "ns")
			name, _ := c.Attr("", "name")
			if granted {
				unknown = append(unknown, "{"+ns+"}"+name)
			}
		default:
			name := ""
			for permission, element := range inXML {
				if element == c.Local {
					name = permission
				}
			}
			switch {
			case name == "":
				x.warn(at, "not known here: it shows nothing")
			case granted:
				m.add(name, yes)
			case text != "false" && text != "0":
				x.fault(at, "%.40q is neither true nor false", text)
			}
		}
	}
	if unknown != nil {
		m.add("unknown", jsontree.OfStrings(unknown))
	}
	if len(slices.Compact(slices.Sorted(slices.Values(m.names)))) != len(m.names) {
		x.fault(at, "each permission stands once in a rule")
	}
	return m.value()
}

func (x *importer) component(at string, e *xmltree.Element, all string) jsontree.Value {
	var tokens []string
	for _, c := range e.Elements() {
		i := slices.IndexFunc(tokensXML, func(t struct{ prefix, element string }) bool { return t.element == c.Local })
		switch {
		case c.Is(nsPres, all):
			tokens = append(tokens, kind.Everything)
		case c.Space != nsPres || i < 0:
			x.warn(at+"/"+c.Local, "not known here: it names nothing")
		default:
			tokens = append(tokens, tokensXML[i].prefix+strings.TrimSpace(c.Text()))
		}
	}
	return jsontree.OfStrings(tokens)
}

// XML writes the policy as a ruleset. What XML cannot say is in warnings, each with
// its JSON pointer: a rule with a condition that it cannot say is left out, for without
// it would show more; what limits cut it does not cut, and none of the rules of a
// policy with limits, or with one that decides alone, is written.
func (p *Policy) XML() (document []byte, warnings jsontree.Faults) {
	b := bytes.NewBufferString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<ruleset xmlns="` + nsCommon + `" xmlns:pr="` + nsPres + `" xmlns:gp="` + nsGeo + `" xmlns:lp="` + nsLocation + `">` + "\n")
	warn := func(pointer, what string) {
		warnings = append(warnings, jsontree.Fault{Pointer: pointer, What: what})
	}
	if p.hasAlone {
		warn("/rules", "XML has no rules that decide alone: without that the others would show more, and are all left out")
	}
	for i := range p.limits {
		warn(p.limits[i].pointer, "XML has no limits: without it the rules would show more, and are left out")
	}
	for i := range p.delegates {
		warn(fmt.Sprintf("/delegates/%d", i), "XML has no delegates")
	}
	if p.demanded > Anonymous {
		warn("/defaults/minVisibility", "XML has no visibility")
	}
	if p.handling != Block {
		warn("/defaults/handling", "XML has no default")
	}
	for i := range p.rules {
		if p.hasAlone {
			break
		}
		r := &p.rules[i]
		if c := &r.if_; c.weekly != nil || c.seen != 0 || c.auth > 0 || c.ops != 0 || c.contact != nil || c.unknown != nil || len(p.limits) > 0 || openEnded(c) {
			if len(p.limits) == 0 {
				warn(r.pointer+"/if", "XML cannot say one of the conditions: the rule is left out, for without it would show more")
			}
			continue
		}
		if r.overrides != nil || r.persona != "" {
			warn(r.pointer, "XML has neither personas nor overrides: the rule is left out, for it would show the truth")
			continue
		}
		if !r.forward.IsZero() {
			warn(r.pointer+"/then/forward", "XML does not forward messages: the rule is left out, for they would come here")
			continue
		}
		if r.terms != (ruleTerms{}) || r.rank != 0 {
			warn(r.pointer+"/then", "XML says nothing of a subscription but the handling")
		}
		r.appendXML(b)
	}
	b.WriteString("</ruleset>\n")
	return b.Bytes(), warnings
}

// openEnded says whether a validity has no beginning or no end, which XML wants.
func openEnded(c *conditions) bool {
	for _, v := range c.validity {
		from, until := v.Bounds()
		if from.IsZero() || until.IsZero() {
			return true
		}
	}
	return false
}

func escaped(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // to memory
	return b.String()
}

func (r *rule) appendXML(b *bytes.Buffer) {
	line := func(format string, args ...string) {
		of := make([]any, len(args))
		for i, a := range args {
			of[i] = escaped(a)
		}
		fmt.Fprintf(b, format+"\n", of...)
	}
	line(`<rule id="%s">`, r.id)
	line(`<conditions>`)
	if who := r.if_.who; who != nil {
		line(`<identity>`)
		for _, a := range who.one {
			line(`<one id="%s"/>`, a.URI("pres"))
		}
		for _, m := range who.many {
			if m.domain == "" {
				line(`<many>`)
			} else {
				line(`<many domain="%s">`, m.domain)
			}
			for _, a := range m.except {
				line(`<except id="%s"/>`, a.URI("pres"))
			}
			for _, d := range m.domains {
				line(`<except domain="%s"/>`, d)
			}
			line(`</many>`)
		}
		line(`</identity>`)
	}
	if r.if_.sphere != nil {
		line(`<sphere value="%s"/>`, strings.Join(r.if_.sphere, " "))
	}
	if r.if_.validity != nil {
		line(`<validity>`)
		for _, v := range r.if_.validity {
			from, until := v.Bounds()
			line(`<from>%s</from><until>%s</until>`, from.Format(time.RFC3339), until.Format(time.RFC3339))
		}
		line(`</validity>`)
	}
	line(`</conditions>`)
	line(`<actions><pr:sub-handling>%s</pr:sub-handling></actions>`, r.handling.String())
	line(`<transformations>`)
	for _, p := range r.show.Perms() {
		r.permXML(p, line)
	}
	line(`</transformations>`)
	line(`</rule>`)
}

func (r *rule) permXML(p kind.Perm, line func(string, ...string)) {
	if i := slices.IndexFunc(components, func(c struct{ permission, element, all string }) bool { return c.permission == p.Name }); i >= 0 {
		line(`<pr:%s>`, components[i].element)
		for _, token := range p.Set {
			if token == kind.Everything {
				line(`<pr:%s/>`, components[i].all)
				continue
			}
			for _, t := range tokensXML {
				if value, ok := strings.CutPrefix(token, t.prefix); ok {
					line(`<pr:`+t.element+`>%s</pr:`+t.element+`>`, value)
					break
				}
			}
		}
		line(`</pr:%s>`, components[i].element)
		return
	}
	switch element := inXML[p.Name]; {
	case placeXML(p, line):
	case element != "":
		line(`<pr:%s>true</pr:%s>`, element, element)
	case p.Name == "all":
		line(`<pr:provide-all-attributes/>`)
	case p.Name == "userInput":
		line(`<pr:provide-user-input>%s</pr:provide-user-input>`, []string{"false", "bare", "thresholds", "full"}[min(max(p.N, 0), 3)])
	case p.Name == "unknown":
		for _, token := range p.Set {
			space, name, ok := strings.Cut(strings.TrimPrefix(token, "{"), "}")
			if ok {
				line(`<pr:provide-unknown-attribute ns="%s" name="%s">true</pr:provide-unknown-attribute>`, space, name)
			}
		}
	}
}
