package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/bellwire/bellwire/profiles/kind"
)

// ownRule begins the ids of rules that Decide has put into a document.
const ownRule = "r-"

// A Ruling is what an owner decides about one watcher.
type Ruling struct {
	Watcher kind.Addr
	Scheme  string                     // of URIs of the kind
	If      map[string]json.RawMessage // conditions beside who it is
	Then    map[string]json.RawMessage
	Show    json.RawMessage // nil: nothing
}

// Withdraw returns a document without the rule that Decide has put into it for a watcher,
// and that rule's id, empty if there is none.
func Withdraw(document []byte, watcher kind.Addr) (left []byte, id string, err error) {
	if document == nil {
		return nil, "", nil
	}
	members, err := membersOf(document)
	if err != nil {
		return nil, "", err
	}
	for i, m := range members {
		if m.name != "rules" {
			continue
		}
		var rules []json.RawMessage
		if err := json.Unmarshal(m.value, &rules); err != nil {
			return nil, "", fmt.Errorf("rules: %w", err)
		}
		kept, ids := split(rules, watcher)
		if len(ids) == 0 {
			return document, "", nil
		}
		if members[i].value, err = json.Marshal(kept); err != nil {
			return nil, "", err
		}
		return write(members), ids[len(ids)-1], nil
	}
	return document, "", nil
}

// split returns the rules that Decide has not made for a watcher, and the ids of those that
// it has.
func split(rules []json.RawMessage, watcher kind.Addr) (kept []json.RawMessage, ids []string) {
	kept = rules[:0:0]
	for _, text := range rules {
		var is struct {
			ID string
			If struct{ Identity []map[string]json.RawMessage }
		}
		_ = json.Unmarshal(text, &is)
		if strings.HasPrefix(is.ID, ownRule) && isOnly(is.If.Identity, watcher) {
			ids = append(ids, is.ID)
			continue
		}
		kept = append(kept, text)
	}
	return kept, ids
}

// Decide returns a document, nil for none, with a rule for a ruling, and the rule's id.
// A rule that an earlier call has made for that watcher, and for nobody else, goes: its
// id is used again. Everything else stays as it was written. It does the same on every
// node, and does not say whether the new document is acceptable.
func Decide(document []byte, r Ruling) (decided []byte, id string, err error) {
	if document == nil {
		document = []byte(`{"v":1}`)
	}
	members, err := membersOf(document)
	if err != nil {
		return nil, "", err
	}
	var rules []json.RawMessage
	at := -1
	for i, m := range members {
		if m.name == "rules" {
			at = i
			if err := json.Unmarshal(m.value, &rules); err != nil {
				return nil, "", fmt.Errorf("rules: %w", err)
			}
		}
	}
	if at < 0 {
		at, members = len(members), append(members, member{name: "rules"})
	}
	kept, ids := split(rules, r.Watcher)
	used := map[string]bool{}
	for _, text := range rules {
		var is struct{ ID string }
		_ = json.Unmarshal(text, &is)
		used[is.ID] = true
	}
	if len(ids) > 0 {
		id = ids[len(ids)-1]
	}
	for n := 1; id == ""; n++ {
		if next := ownRule + strconv.Itoa(n); !used[next] {
			id = next
		}
	}
	rule, err := r.rule(id)
	if err != nil {
		return nil, "", err
	}
	if members[at].value, err = json.Marshal(append(kept, rule)); err != nil {
		return nil, "", err
	}
	return write(members), id, nil
}

// isOnly says whether an identity is one watcher.
func isOnly(identity []map[string]json.RawMessage, w kind.Addr) bool {
	if len(identity) != 1 || len(identity[0]) != 1 {
		return false
	}
	var uri string
	if json.Unmarshal(identity[0]["one"], &uri) != nil {
		return false
	}
	_, a, err := kind.ParseURI(uri)
	return err == nil && a == w
}

func (r *Ruling) rule(id string) (json.RawMessage, error) {
	conditions := map[string]any{"identity": []any{map[string]string{"one": r.Watcher.URI(r.Scheme)}}}
	for name, value := range r.If {
		if name == "identity" {
			return nil, errors.New(`if: whom it is about stands in "watcher"`)
		}
		conditions[name] = value
	}
	rule := struct {
		ID   string          `json:"id"`
		If   map[string]any  `json:"if"`
		Then any             `json:"then"`
		Show json.RawMessage `json:"show,omitempty"`
	}{id, conditions, r.Then, r.Show}
	return json.Marshal(rule)
}

// A member of an object, as it was written.
type member struct {
	name  string
	value json.RawMessage
}

// membersOf returns the members of an object in their order.
func membersOf(document []byte) (members []member, err error) {
	d := json.NewDecoder(bytes.NewReader(document))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("the document is no JSON object")
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		m := member{name: t.(string)}
		if err := d.Decode(&m.value); err != nil {
			return nil, err
		}
		members = append(members, m)
	}
	return members, nil
}

func write(members []member) []byte {
	b := []byte{'{'}
	for i, m := range members {
		if i > 0 {
			b = append(b, ',')
		}
		name, _ := json.Marshal(m.name)
		b = append(append(append(b, name...), ':'), m.value...)
	}
	return append(b, '}')
}

// Everything is what a rule shows that shows all there is of a kind, as JSON.
func Everything(k For) json.RawMessage {
	show := map[string]any{}
	for _, p := range k.Permissions() {
		switch {
		case p.Type == kind.PermBool:
			show[p.Name] = true
		case p.Type == kind.PermMin:
			show[p.Name] = 0
		case p.Type == kind.PermMax && p.Words != nil:
			show[p.Name] = p.Words[len(p.Words)-1]
		case p.Type == kind.PermMax:
			show[p.Name] = p.Max
		default:
			show[p.Name] = []string{kind.Everything}
		}
	}
	text, _ := json.Marshal(show)
	return text
}

// Tag is the entity tag of a document: what is decided about it can be made to depend
// on that it is still this one.
func Tag(document []byte) string {
	if document == nil {
		return "0"
	}
	return strconv.FormatUint(tagOf(document), 36)
}

// tagOf is FNV-1a, of 64 bits: who makes two documents with one tag makes them for
// themselves.
func tagOf(document []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, b := range document {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return h
}
