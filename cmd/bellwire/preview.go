package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/policy"
)

// A previewed is what somebody would be shown, as HTTP tells it.
type previewed struct {
	Watcher  string `json:"watcher,omitempty"`
	At       string `json:"at"`
	Kind     string `json:"kind"`
	Handling string `json:"handling"`
	View     string `json:"view"`
	Because  string `json:"because"`

	Rules   []string `json:"rules,omitempty"` // that make the view together
	CutBy   []string `json:"cutBy,omitempty"` // limits
	Persona string   `json:"persona,omitempty"`
	Until   string   `json:"until,omitempty"` // when something else may be shown

	// Of messages: what their sender may do, and to whose inbox they go if that is another's.
	Shows   json.RawMessage `json:"shows,omitempty"`
	Forward string          `json:"forward,omitempty"`

	// Type and Document are what they would be sent: left out if that is nothing.
	Type     string          `json:"type,omitempty"`
	Document json.RawMessage `json:"document,omitempty"`
}

// preview answers an owner who wants to know what somebody would be shown.
func (s *server) preview(principal, of, whose, watcher, at string) (d api.Document, err error) {
	if whose == "" {
		whose = principal
	}
	owner, err := kind.ParseAddr(whose)
	if err != nil {
		return d, fmt.Errorf("%w: of: %w", api.ErrBadName, err)
	}
	var who kind.Addr
	if watcher != "" {
		if who, err = kind.ParseAddr(watcher); err != nil {
			return d, fmt.Errorf("%w: watcher: %w", api.ErrBadName, err)
		}
	}
	then := s.now()
	if at != "" {
		if then, err = acl.ParseInstant(at, then); err != nil {
			return d, fmt.Errorf("%w: at: %w", api.ErrBadName, err)
		}
	}
	p, err := s.broker.Preview(principal, kind.Resource{Kind: of, Addr: owner}.Topic(), broker.Who{Principal: who.String()}, kind.Nanos(then))
	if err != nil {
		return d, s.fetchError(of, err)
	}
	e, ok := p.Why.(policy.Explanation)
	if !ok {
		return d, fmt.Errorf("%w: nobody can say beforehand what is shown of %s", api.ErrNoKind, of)
	}
	told := previewed{
		Watcher: watcher, At: then.Format(time.RFC3339), Kind: of, Handling: e.Handling.String(), View: e.View.String(), Because: e.Because,
		Rules: e.Live, CutBy: e.CutBy,
	}
	if name := e.Grant.Persona(); name != kind.Everything {
		told.Persona = name
	}
	if isInbox(of) && e.View == policy.ViewFiltered {
		told.Shows = e.Grant.Append(nil, policyKinds()[of].Permissions())
		told.Forward = e.Forward.String()
	}
	if !e.Until.IsZero() {
		told.Until = e.Until.In(then.Location()).Format(time.RFC3339)
	}
	if !p.Ceiling {
		told.View, told.Because = policy.ViewNeutral.String(), "the operator of the server does not show it to them, whatever the policy says"
		told.Rules, told.CutBy, told.Persona, told.Until, told.Shows, told.Forward = nil, nil, "", "", nil, ""
	}
	if !p.Absent && json.Valid(p.Payload) {
		told.Type, told.Document = event.ContentType(p.Props), p.Payload
	}
	body, err := json.Marshal(told)
	return api.Document{Type: "application/json", Body: body}, err
}

// isInbox says whether of a kind messages are sent, and nothing is shown.
func isInbox(kindName string) bool {
	_, is := policyKinds()[kindName].(kind.Inbox)
	return is
}

// ask has a server say what would be seen, by what is in force and published there.
func (f *policyPreview) ask(ctx context.Context, w io.Writer, kindName string) error {
	c, err := f.http.client()
	if err != nil {
		return err
	}
	query := url.Values{"watcher": {f.watcher}, "at": {f.at}}
	if f.as != "" {
		query.Set("of", f.as)
	}
	var p previewed
	if err := c.call(ctx, "GET", "/v1/me/preview/"+url.PathEscape(kindName)+"?"+query.Encode(), nil, &p); err != nil {
		return err
	}
	who := p.Watcher
	if who == "" {
		who = "somebody without an identity"
	}
	var b strings.Builder
	line := func(format string, args ...any) { b.WriteString(safe(fmt.Sprintf(format, args...)) + "\n") }
	line("%s, VIEW %s   %s   for %s at %s", strings.ToUpper(p.Handling), strings.ToUpper(p.View), p.Kind, who, p.At)
	line("  because %s", p.Because)
	if p.Persona != "" {
		line("  as the persona %s", p.Persona)
	}
	if p.Shows != nil {
		line("  may %s", p.Shows)
	}
	if p.Until != "" {
		line("  until %s", p.Until)
	}
	switch {
	case isInbox(kindName): // nobody but its owner is sent anything
	case p.Document == nil:
		line("  and is sent nothing")
	default:
		b.WriteString(string(safeJSON(p.Document)) + "\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fail(bw.File, "cannot write: %w", err)
	}
	return nil
}
