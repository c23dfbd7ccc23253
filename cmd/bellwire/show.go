package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/internal/nearest"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/policy"
)

// readShow reads what a rule shows, the value of a flag: the names of permissions, with
// commas, each with = and a value where it has one; or the JSON of a policy's show. An
// error names all that is wrong.
//
//	services,persons,activities,note
//	radius=1000,civic=city
func readShow(flag, of, text string) (json.RawMessage, error) {
	k, err := policyFor(of)
	if err != nil {
		return nil, err
	}
	show := []byte(text)
	if !strings.HasPrefix(strings.TrimSpace(text), "{") {
		members := map[string]any{}
		for _, word := range strings.Split(text, ",") {
			if err := addPermission(members, k.Permissions(), strings.TrimSpace(word)); err != nil {
				return nil, fail(bw.Usage, "%s: %w", flag, err).do("%s can show %s", of, permissionNames(k.Permissions()))
			}
		}
		show = mustJSON(members)
	}
	if !json.Valid(show) {
		return nil, usage("%s %s: this is no JSON", flag, text)
	}
	// The same door as that of whole policies.
	document := slices.Concat([]byte(`{"v":1,"rules":[{"id":"x","then":{"handling":"allow"},"show":`), show, []byte(`}]}`))
	checked, err := policy.Check(document, k, kind.Addr{Local: "x", Domain: "x.example"})
	if err != nil {
		if refused, ok := errors.AsType[*kind.Refusal](err); ok && len(refused.Faults) > 0 {
			var all []string
			for _, f := range refused.Faults {
				all = append(all, strings.TrimPrefix(pointed(f), "/rules/0/show/"))
			}
			return nil, fail(bw.Usage, "%s: %s", flag, strings.Join(all, "; ")).do("%s can show %s", of, permissionNames(k.Permissions()))
		}
		return nil, fail(bw.Usage, "%s: %w", flag, err)
	}
	for _, f := range checked.Warnings() { // of a whole policy it is told: here somebody has just written it
		return nil, fail(bw.Usage, "%s: %s", flag, strings.TrimPrefix(pointed(f), "/rules/0/show/")).do("%s can show %s", of, permissionNames(k.Permissions()))
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, show); err != nil {
		return nil, usage("%s: %w", flag, err)
	}
	return compact.Bytes(), nil
}

// addPermission adds what a word of readShow names.
func addPermission(show map[string]any, permissions []kind.Permission, word string) error {
	name, value, has := strings.Cut(word, "=")
	at := slices.IndexFunc(permissions, func(p kind.Permission) bool { return p.Name == name })
	if at < 0 {
		var names []string
		for _, p := range permissions {
			names = append(names, p.Name)
		}
		if near := nearest.Name(name, names); near != "" {
			return fmt.Errorf("there is no %q to show: did you mean %s?", name, near)
		}
		return fmt.Errorf("there is no %q to show", name)
	}
	p := &permissions[at]
	switch {
	case p.Type == kind.PermBool && has:
		return fmt.Errorf("%s is shown or not: it has no value", name)
	case p.Type == kind.PermBool:
		show[name] = true
	case p.Type == kind.PermSet && !has:
		show[name] = []string{kind.Everything}
	case p.Type == kind.PermSet:
		tokens, _ := show[name].([]string)
		show[name] = append(tokens, value)
	case !has:
		return fmt.Errorf("%s wants a value: %s", name, valueOf(p))
	case p.Words != nil:
		show[name] = value
	default:
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return fmt.Errorf("%s is %q: want %s", name, value, valueOf(p))
		}
		show[name] = n
	}
	return nil
}

// valueOf says which values a permission has.
func valueOf(p *kind.Permission) string {
	if p.Words != nil {
		return p.Name + "=" + strings.Join(p.Words[1:], "|")
	}
	return fmt.Sprintf("%s=0…%d", p.Name, p.Max)
}

// permissionNames lists what a kind can show, as readShow reads it.
func permissionNames(permissions []kind.Permission) string {
	var all []string
	for i := range permissions {
		word := permissions[i].Name
		if t := permissions[i].Type; t != kind.PermBool && t != kind.PermSet {
			word = valueOf(&permissions[i])
		}
		all = append(all, word)
	}
	return strings.Join(all, ", ")
}
