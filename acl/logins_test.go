package acl

import (
	"slices"
	"strings"
	"testing"
)

// The first entry that names a listener says how its clients sign in; where none does, any
// secret is good and certificates prove nobody.
func TestLogins(t *testing.T) {
	p := mustParse(t, `
logins:
  - {listeners: [plant], by: [certificate], names: [dns, cn], domains: [plant.example], bind_client_id: true}
  - {listeners: [plant, http], by: [jwt, token]}
`)
	plant, web, other := p.LoginAt("plant"), p.LoginAt("http"), p.LoginAt("mqtt")
	if !slices.Equal(plant.Names, []string{"dns", "cn"}) || !plant.BindID || !plant.Allows(ByCertificate) || plant.Allows(ByPassword) || !slices.Equal(plant.Domains, []string{"plant.example"}) {
		t.Errorf("plant: %+v", plant)
	}
	if web.BindID || !web.Allows(BySigned) || web.Allows(ByPassword) || !slices.Equal(web.Names, Names) || !slices.Equal(web.Domains, []string{"example.com"}) {
		t.Errorf("http: %+v", web)
	}
	for _, way := range Ways {
		if other.Allows(way) != (way != ByCertificate) {
			t.Errorf("mqtt by %s: %v", way, other.Allows(way))
		}
	}
	if all := mustParse(t, "logins: [{listeners: ['*'], by: [scram]}]"); !all.LoginAt("x").Allows(ByScram) || all.LoginAt("x").Allows(ByToken) || !all.HasLogins() {
		t.Errorf("all: %+v", all.LoginAt("x"))
	}
	for text, want := range map[string]bool{
		"": false, "logins: [{listeners: [a], by: [password]}]": false, "logins: [{listeners: [a], by: [certificate]}]": true,
	} {
		if got := mustParse(t, text).SignsIn(); got != want {
			t.Errorf("%q: somebody can sign in: %v, want %v", text, got, want)
		}
	}
	for _, c := range []struct{ entry, want string }{
		{"by: [jwt]", "without listeners"},
		{"listeners: [a]", "without listeners, or without by"},
		{"listeners: [a], by: [magic]", `"magic" is no way to sign in`},
		{"listeners: [a], by: [jwt], names: [ou]", `"ou" is no name of a certificate`},
		{"listeners: [a], by: [jwt], bind_client_id: yes please", "neither true nor false"},
		{`listeners: [a], by: [jwt], domains: ["a b"]`, "domain"},
	} {
		if _, err := Parse("policy.yaml", []byte("logins: [{"+c.entry+"}]"), "example.com"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v does not say %q", c.entry, err, c.want)
		}
	}
}
