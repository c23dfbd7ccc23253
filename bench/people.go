package bench

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A person is a user of a row with permissions: each signs in by name and token,
// publishes to one topic, and watches those of some others.
type person struct {
	user, token string
	topic       string
	barred      bool // is shown nothing: every owner makes an exception of this one
}

const (
	peopleDomain = "example.com"
	peopleTopics = "presence/" + peopleDomain + "/"
	barredPeople = 2 // the last ones
)

// people returns the users of a row. That some are barred shows that somebody
// looks: a broker that lets all see everything gives itself away by them.
func people(sc Scenario) []person {
	var all []person
	for i := range sc.Publishers {
		name := fmt.Sprintf("u%03d", i)
		all = append(all, person{
			user: name + "@" + peopleDomain, token: "token-" + name,
			topic: peopleTopics + name, barred: i >= sc.Publishers-barredPeople,
		})
	}
	return all
}

// ownersPolicy is what each owner says in Bellwire: who is of the domain may
// see services and note, but for those who are barred.
func ownersPolicy(ps []person) []byte {
	var except []string
	for _, p := range ps {
		if p.barred {
			except = append(except, fmt.Sprintf(`{"id":"pres:%s"}`, p.user))
		}
	}
	return fmt.Appendf(nil, `{"v":1,"kind":"presence","rules":[{"id":"people",`+
		`"if":{"identity":[{"many":{"domain":%q,"except":[%s]}}]},`+
		`"then":{"handling":"allow"},"show":{"services":["*"],"note":true}}]}`, peopleDomain, strings.Join(except, ","))
}

// bellwireUsers is a policy file. The operator leaves presence to its owners.
func bellwireUsers(ps []person) []byte {
	b := []byte("users:\n")
	for _, p := range ps {
		b = fmt.Appendf(b, "  %s: {token_sha256: %x}\n", p.user, sha256.Sum256([]byte(p.token)))
	}
	return fmt.Appendf(b, "rules:\n  - {id: all, allow: [publish, subscribe], who: [\"*@%s\"], topic: [\"#\"]}\n", peopleDomain)
}

// mosquittoUsers writes the files that name the users, into dir, and returns
// what tells mosquitto of them.
func mosquittoUsers(dir string, ps []person) (conf string, err error) {
	passwords, acls := filepath.Join(dir, "passwords"), filepath.Join(dir, "acls")
	known, err := mosquittoPasswords(ps)
	if err != nil {
		return "", err
	}
	err = errors.Join(os.WriteFile(passwords, known, 0o600), os.WriteFile(acls, mosquittoACLs(ps), 0o600))
	return fmt.Sprintf("password_file %s\nacl_file %s\n", passwords, acls), err
}

// mosquittoPasswords is a password_file. PBKDF2 with its own tool's count of
// iterations; who signs in is not measured.
func mosquittoPasswords(ps []person) ([]byte, error) {
	const iterations = 101
	salt := []byte("bellwire-bmk") // of the 12 bytes that it reads
	var b []byte
	for _, p := range ps {
		sum, err := pbkdf2.Key(sha512.New, p.token, salt, iterations, sha512.Size)
		if err != nil {
			return nil, fmt.Errorf("pbkdf2: %w", err)
		}
		text := base64.StdEncoding.EncodeToString
		b = fmt.Appendf(b, "%s:$7$%d$%s$%s\n", p.user, iterations, text(salt), text(sum))
	}
	return b, nil
}

// mosquittoACLs is an acl_file. Rules by user and not by pattern: it would have
// to fill in a pattern for each delivery.
func mosquittoACLs(ps []person) []byte {
	var b []byte
	for _, p := range ps {
		b = fmt.Appendf(b, "user %s\ntopic write %s\n", p.user, p.topic)
		if !p.barred {
			b = fmt.Appendf(b, "topic read %s+\n", peopleTopics)
		}
	}
	return b
}

// natsUsers is the part of a configuration that says who may do what.
func natsUsers(ps []person) []byte {
	subject := func(topic string) string { // a dot within a level is two slashes
		return strings.NewReplacer("/", ".", ".", "//", "+", "*").Replace(topic)
	}
	b := []byte("authorization {\n  users: [\n")
	for _, p := range ps {
		sees := "allow"
		if p.barred {
			sees = "deny"
		}
		b = fmt.Appendf(b, "    { user: %q, password: %q, permissions: { publish: %q, subscribe: { %s: %q } } }\n",
			p.user, p.token, subject(p.topic), sees, subject(peopleTopics+"+"))
	}
	return append(b, "  ]\n}\n"...)
}

// mochiUsers is the file that bench/peers/mochi reads.
func mochiUsers(ps []person) []byte {
	type user struct{ Token, Publish, Subscribe string }
	all := map[string]user{}
	for _, p := range ps {
		u := user{Token: p.token, Publish: p.topic}
		if !p.barred {
			u.Subscribe = peopleTopics
		}
		all[p.user] = u
	}
	b, _ := json.Marshal(all) // strings always can be written
	return b
}
