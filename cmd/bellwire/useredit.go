package main

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/authn"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/yamltree"
)

// Users of a policy file are added and removed a line, or a few, at a time: whatever else
// stands there, comments and layout too, stays as it is to the byte. What comes out is
// parsed before it takes the place of the file, and has to have exactly the users that were
// meant: a layout that lines cannot change is left alone, and that is said.

// A policyUsers is a policy file as its users are edited.
type policyUsers struct {
	path, domain string
	lines        []string // with their ends
	section      *yamltree.Key
	users        []policyUser
}

type policyUser struct {
	Name string `json:"user"` // as the file has it
	By   string `json:"by"`   // password, token or scram, or two of them

	from, until int // lines, counted from 0, without until
}

// userFlags say which file.
type userFlags struct{ policy, domain string }

func (f *userFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.policy, "policy", "policy.yaml", "the policy `file`")
	cmd.Flags().StringVar(&f.domain, "domain", "", "`domain` of names without one, as serve --domain has it")
}

func (f *userFlags) read() (*policyUsers, error) {
	path, err := filepath.EvalSymlinks(f.policy) // what is replaced is the file, not the link to it
	if err != nil {
		return nil, fileFault(bw.PolicyFile, f.policy, err)
	}
	data, err := readPolicyData(path)
	if err != nil {
		return nil, err
	}
	return readUsers(path, data, f.domain)
}

// readLocked is read for who changes the file: nobody else does until unlock is called.
func (f *userFlags) readLocked() (p *policyUsers, unlock func(), err error) {
	path, err := filepath.EvalSymlinks(f.policy)
	if err != nil {
		return nil, nil, fileFault(bw.PolicyFile, f.policy, err)
	}
	// Of the directory: the file is another one each time that it is replaced.
	dir, err := os.Open(filepath.Dir(path))
	if err == nil {
		err = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		return nil, nil, fileFault(bw.PolicyFile, path, errors.Join(err, dir.Close()))
	}
	unlock = func() { _ = dir.Close() } // which was read at most
	if p, err = f.read(); err != nil {
		unlock()
	}
	return p, unlock, err
}

// readUsers reads the users of a file, which has no faults.
func readUsers(path string, data []byte, domain string) (*policyUsers, error) {
	if _, err := parsePolicy(path, data, domain); err != nil {
		return nil, err
	}
	p := &policyUsers{path: path, domain: domain, lines: slices.Collect(strings.Lines(string(data)))}
	_, top := yamltree.Read(path, data, yamltree.Form{})
	if top == nil {
		return p, nil
	}
	at := slices.IndexFunc(top.Keys, func(k yamltree.Key) bool { return k.Name == "users" })
	if at < 0 {
		return p, nil
	}
	p.section = &top.Keys[at]
	for _, k := range p.section.Value.Keys {
		u := policyUser{Name: k.Name, from: k.Pos.Line - 1, until: lastLine(k.Value)}
		var by []string
		for _, c := range k.Value.Keys {
			word, _, _ := strings.Cut(c.Name, "_")
			by = append(by, word)
		}
		u.By, u.until = strings.Join(by, " "), max(u.until, k.Pos.Line)
		p.users = append(p.users, u)
	}
	return p, nil
}

// lastLine is the last line, counted from 1, on which something of a value begins.
func lastLine(n *yamltree.Node) (line int) {
	line = n.Pos.Line
	for _, k := range n.Keys {
		line = max(line, k.Pos.Line, lastLine(k.Value))
	}
	for _, v := range n.List {
		line = max(line, lastLine(v))
	}
	return line
}

// find returns the place of a user, -1 if there is none of that name.
func (p *policyUsers) find(name string) (int, error) {
	address, err := acl.ParseAddress(name, p.domain)
	if err != nil {
		return -1, fail(bw.Usage, "%w", err)
	}
	return slices.IndexFunc(p.users, func(u policyUser) bool {
		has, err := acl.ParseAddress(u.Name, p.domain)
		return err == nil && has == address
	}), nil
}

// add returns the file with a user more, behind those that it has.
func (p *policyUsers) add(name, key, secret string) []string {
	quoted, _ := json.Marshal(name) // JSON's strings are YAML's
	entry := fmt.Sprintf("%s: {%s: %q}\n", quoted, key, secret)
	if name == strings.Trim(name, "-?:,[]{}#&*!|>'\"%@` ") && !strings.ContainsAny(name, ":#\\\"") {
		entry = name + strings.TrimPrefix(entry, string(quoted))
	}
	lines := slices.Clone(p.lines)
	if n := len(lines); n > 0 && !strings.HasSuffix(lines[n-1], "\n") {
		lines[n-1] += "\n"
	}
	switch {
	case p.section == nil:
		return append(lines, "users:\n", "  "+entry)
	case len(p.users) == 0:
		return slices.Insert(lines, p.section.Pos.Line, "  "+entry)
	}
	last := p.users[len(p.users)-1]
	indent := p.section.Value.Keys[0].Pos.Column - 1
	return slices.Insert(lines, last.until, strings.Repeat(" ", indent)+entry)
}

// remove returns the file without a user, and without the section if it was the last.
func (p *policyUsers) remove(at int) ([]string, error) {
	u := p.users[at]
	for i, other := range p.users {
		if i != at && other.from < u.until && u.from < other.until {
			return nil, p.notByLines()
		}
	}
	from := u.from
	if len(p.users) == 1 && p.section.Pos.Line-1 < from {
		from = p.section.Pos.Line - 1
	}
	return slices.Delete(slices.Clone(p.lines), from, u.until), nil
}

// replace puts lines in the place of the file, if they have just these users.
func (p *policyUsers) replace(lines []string, want []string) error {
	text := []byte(strings.Join(lines, ""))
	made, err := readUsers(p.path, text, p.domain)
	var got []string
	if made != nil {
		for _, u := range made.users {
			got = append(got, u.Name)
		}
	}
	if slices.Sort(got); err == nil && slices.Equal(got, slices.Sorted(slices.Values(want))) {
		return replaceFile(p.path, text)
	}
	if before, wasErr := readUsers(p.path, []byte(strings.Join(p.lines, "")), p.domain); err != nil && wasErr == nil && len(before.users) > len(want) {
		return err // who goes is spoken of elsewhere: the fault says where
	}
	return p.notByLines()
}

func (p *policyUsers) notByLines() error {
	return fail(bw.PolicyFile, "the users of %s are not one to a line, or not in a block of their own: they cannot be changed by lines", p.path).
		do("write users: and below it, indented, a line for each: ana@example.com: {password_hash: …}; or edit it by hand")
}

// replaceFile replaces a file's content, all of it or nothing, and keeps its mode.
func replaceFile(path string, data []byte) (err error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileFault(bw.File, path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fileFault(bw.File, path, err)
	}
	_, err = f.Write(data)
	err = cmp.Or(err, f.Chmod(info.Mode().Perm()), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fail(bw.File, "%s is not changed: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// warnOfReaders says so if everybody on the machine may read a policy file: what is in it lets
// one try out passwords.
func warnOfReaders(notes io.Writer, path string) {
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o004 != 0 {
		fmt.Fprintf(notes, "everybody on this machine may read %s, which holds hashes of passwords: chmod o-r %s, if the server may read it without\n", path, path)
	}
}

// inForceBy says how what was changed comes into force.
func inForceBy(path string) string {
	return "in force when the server reads it: kill -HUP, or bellwire acl apply " + path
}

func userListCommand() *cobra.Command {
	var file userFlags
	var output string
	cmd := &cobra.Command{
		Use:     "ls",
		Short:   "The users of a policy file, and how each signs in",
		Example: "  bellwire user ls --policy policy.yaml\n  bellwire user ls -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			p, err := file.read()
			if err != nil {
				return err
			}
			if output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(append([]policyUser{}, p.users...))
			}
			for _, u := range p.users {
				if err := writeLine(cmd.OutOrStdout(), []byte(safe(u.Name+"  "+u.By))); err != nil {
					return err
				}
			}
			return nil
		},
	}
	file.register(cmd)
	addOutput(cmd, &output)
	return cmd
}

func userAddCommand() *cobra.Command {
	var file userFlags
	var token, scram, replace bool
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a user to a policy file, whose comments and layout stay",
		Long: `Reads a password, asked for twice at a terminal, else standard input without the
line's end, and adds the user to the policy file with its hash. With --token it makes a
random token instead, for a device, and prints it once. The file is replaced whole, or not
at all; what else stands there stays as it is. It comes into force as any change of it.
A name without a domain is written with that of --domain.`,
		Example: `  bellwire user add ana@example.com --policy policy.yaml
  printf %s "$PASSWORD" | bellwire user add ana@example.com --replace
  bellwire user add thermo-17 --domain example.com --token`,
		Args: someArgs(1, 1, "the user's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := file.read()
			if err != nil {
				return err
			}
			at, err := p.find(args[0])
			switch {
			case err != nil:
				return err
			case at >= 0 && !replace:
				return userThere(p, args[0], at)
			}
			key, hash, made, err := newCredential(cmd, token, scram)
			if err != nil {
				return err
			}
			p, unlock, err := file.readLocked() // it may have changed while somebody typed
			if err != nil {
				return err
			}
			defer unlock()
			switch at, err = p.find(args[0]); {
			case err != nil:
				return err
			case at >= 0 && !replace:
				return userThere(p, args[0], at)
			}
			name := args[0]
			switch {
			case at >= 0:
				name = p.users[at].Name // as the file has it
			case p.domain != "" && !strings.Contains(name, "@"):
				name += "@" + p.domain // who reads the file need not be told the domain
			}
			edited, want := p, []string{name}
			for i, u := range p.users {
				if i != at {
					want = append(want, u.Name)
				}
			}
			if at >= 0 {
				lines := slices.Clone(p.lines)
				edited = &policyUsers{path: p.path, domain: p.domain, lines: lines, section: p.section, users: p.users}
				lines = edited.add(name, key, hash)
				line := lines[p.users[len(p.users)-1].until]
				lines = slices.Delete(lines, p.users[len(p.users)-1].until, p.users[len(p.users)-1].until+1)
				lines = slices.Replace(lines, p.users[at].from, p.users[at].until, line)
				err = p.replace(lines, want)
			} else {
				err = p.replace(p.add(name, key, hash), want)
			}
			if err != nil {
				return err
			}
			if made != "" {
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), made); err != nil {
					return err
				}
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s is a user of %s; %s\n", safe(name), p.path, inForceBy(p.path))
			warnOfReaders(cmd.ErrOrStderr(), p.path)
			return nil
		},
	}
	file.register(cmd)
	cmd.Flags().BoolVar(&token, "token", false, "make a token, for a device, and print it")
	cmd.Flags().BoolVar(&scram, "scram", false, "keep the verifier for SCRAM-SHA-256, which a password is never sent for")
	cmd.Flags().BoolVar(&replace, "replace", false, "another password or token for a user that there is")
	cmd.MarkFlagsMutuallyExclusive("token", "scram")
	return cmd
}

func userThere(p *policyUsers, name string, at int) error {
	return fail(bw.Usage, "%s is a user already, in line %d of %s", name, p.users[at].from+1, p.path).do("give --replace to set another password or token")
}

// newCredential reads a password, or makes a token, and returns what a policy keeps of it,
// and the token.
func newCredential(cmd *cobra.Command, token, scram bool) (key, hash, made string, err error) {
	if token {
		made, err = acl.NewToken(rand.Reader)
		return "token_sha256", acl.HashToken([]byte(made)), made, err
	}
	secret, err := readSecret(cmd.InOrStdin(), cmd.ErrOrStderr(), "password")
	if err != nil {
		return "", "", "", err
	}
	key = "password_hash"
	if scram {
		key = "scram_sha256"
	}
	hash, err = hashSecret(secret, false, scram, authn.ScramIterations)
	return key, hash, "", err
}

func userRemoveCommand() *cobra.Command {
	var file userFlags
	cmd := &cobra.Command{
		Use:   "rm NAME",
		Short: "Remove a user from a policy file, whose comments and layout stay",
		Long: `Removes a user from the policy file. When that is in force the user cannot sign in any
more, and sessions and queues of theirs end.`,
		Example: "  bellwire user rm ana@example.com --policy policy.yaml",
		Args:    someArgs(1, 1, "the user's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, unlock, err := file.readLocked()
			if err != nil {
				return err
			}
			defer unlock()
			at, err := p.find(args[0])
			switch {
			case err != nil:
				return err
			case at < 0:
				return fail(bw.Usage, "%s is no user of %s", args[0], p.path).do("bellwire user ls --policy %s lists them", p.path)
			}
			var want []string
			for i, u := range p.users {
				if i != at {
					want = append(want, u.Name)
				}
			}
			lines, err := p.remove(at)
			if err == nil {
				err = p.replace(lines, want)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s is no user of %s any more; %s\n", safe(args[0]), p.path, inForceBy(p.path))
			return nil
		},
	}
	file.register(cmd)
	return cmd
}
