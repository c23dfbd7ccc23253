package main

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	value       *yamltree.Node
}

// is what a change of the file must leave of a user.
func (u *policyUser) is() string {
	return u.Name + " " + strings.Join(slices.Sorted(strings.FieldsSeq(u.By)), " ")
}

// A credential is what a policy keeps of a secret, and under which key.
type credential struct{ key, hash string }

// by is how one signs in by it, as policyUser has it.
func (c credential) by() string {
	word, _, _ := strings.Cut(c.key, "_")
	return word
}

func (c credential) String() string { return fmt.Sprintf("%s: %q", c.key, c.hash) }

// userFlags say which file.
type userFlags struct{ policy, domain string }

func (f *userFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.policy, "policy", "policy.yaml", "the policy `file`")
	cmd.Flags().StringVar(&f.domain, "domain", "", "`domain` of names without one, as serve --domain has it")
}

// missing says that the file cannot be found, and how one begins.
func (f *userFlags) missing(err error) error {
	wrong := fileFault(bw.PolicyFile, f.policy, err)
	if errors.Is(err, fs.ErrNotExist) {
		wrong.do("name the file with --policy FILE; to begin one: echo 'rules: []' > %s", f.policy)
	}
	return wrong
}

func (f *userFlags) read() (*policyUsers, error) {
	path, err := filepath.EvalSymlinks(f.policy) // what is replaced is the file, not the link to it
	if err != nil {
		return nil, f.missing(err)
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
		return nil, nil, f.missing(err)
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
		u := policyUser{Name: k.Name, from: k.Pos.Line - 1, until: lastLine(k.Value), value: k.Value}
		var by []string
		for _, c := range k.Value.Keys {
			by = append(by, credential{key: c.Name}.by())
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
		return -1, fail(bw.Usage, "%w", err).do("give an address, or --domain, the domain of bare names")
	}
	return slices.IndexFunc(p.users, func(u policyUser) bool {
		has, err := acl.ParseAddress(u.Name, p.domain)
		return err == nil && has == address
	}), nil
}

// entry is the line of a user, without what it is indented by.
func entry(name string, has []credential) string {
	quoted, _ := json.Marshal(name) // JSON's strings are YAML's
	key := string(quoted)
	if name == strings.Trim(name, "-?:,[]{}#&*!|>'\"%@` ") && !strings.ContainsAny(name, ":#\\\"") {
		key = name
	}
	var all []string
	for _, c := range has {
		all = append(all, c.String())
	}
	return key + ": {" + strings.Join(all, ", ") + "}\n"
}

// add returns the file with a user more, behind those that it has.
func (p *policyUsers) add(name string, has []credential) []string {
	line := entry(name, has)
	lines := p.ended()
	switch {
	case p.section == nil:
		return append(lines, "users:\n", "  "+line)
	case len(p.users) == 0:
		return slices.Insert(lines, p.section.Pos.Line, "  "+line)
	}
	return slices.Insert(lines, p.users[len(p.users)-1].until, p.indented(line))
}

// set returns the file with other credentials in the place of those of a user.
func (p *policyUsers) set(at int, has []credential) []string {
	u := p.users[at]
	return slices.Replace(p.ended(), u.from, u.until, p.indented(entry(u.Name, has)))
}

// put returns the file with a credential more of a user, and all else of its entry as it is.
func (p *policyUsers) put(at int, c credential) ([]string, error) {
	u, lines := p.users[at], p.ended()
	if len(u.value.Keys) == 0 || u.value.Pos.Line == 0 {
		return nil, p.notByLines()
	}
	first, open := u.value.Keys[0].Pos, u.value.Pos
	line := []rune(lines[open.Line-1])
	if line[open.Column-1] != '{' { // a block: a line below it
		return slices.Insert(lines, u.until, strings.Repeat(" ", first.Column-1)+c.String()+"\n"), nil
	}
	lines[open.Line-1] = string(slices.Insert(line, open.Column, []rune(c.String()+", ")...))
	return lines, nil
}

// ended returns the file's lines, each with its end, to be changed.
func (p *policyUsers) ended() []string {
	lines := slices.Clone(p.lines)
	if n := len(lines); n > 0 && !strings.HasSuffix(lines[n-1], "\n") {
		lines[n-1] += "\n"
	}
	return lines
}

// indented returns a line as those of the users are.
func (p *policyUsers) indented(line string) string {
	return strings.Repeat(" ", p.section.Value.Keys[0].Pos.Column-1) + line
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

// replace puts lines in the place of the file, if they have just these users, who sign in as these do.
func (p *policyUsers) replace(lines []string, want []policyUser) error {
	text := []byte(strings.Join(lines, ""))
	made, err := readUsers(p.path, text, p.domain)
	if err == nil && slices.Equal(whoIs(made.users), whoIs(want)) {
		return replaceFile(p.path, text)
	}
	if before, wasErr := readUsers(p.path, []byte(strings.Join(p.lines, "")), p.domain); err != nil && wasErr == nil && len(before.users) > len(want) {
		return err // who goes is spoken of elsewhere: the fault says where
	}
	return p.notByLines()
}

// whoIs returns what replace compares, in order.
func whoIs(users []policyUser) (all []string) {
	for i := range users {
		all = append(all, users[i].is())
	}
	slices.Sort(all)
	return all
}

// without returns the users but for one.
func (p *policyUsers) without(at int) []policyUser {
	return slices.Delete(slices.Clone(p.users), at, at+1)
}

func (p *policyUsers) notByLines() error {
	return fail(bw.PolicyFile, "the users of %s are not one to a line, or not in a block of their own: they cannot be changed by lines", p.path).
		do("write users: and below it, indented, a line for each: ana@example.com: {password_hash: …}; or edit it by hand")
}

// replaceFile replaces a file's content, all of it or nothing, and keeps its mode and owner:
// root may change what a server of another user reads.
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
	err = cmp.Or(err, keepOwner(f, info), f.Chmod(info.Mode().Perm()), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fail(bw.File, "%s is not changed: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// keepOwner gives a file the owner and group of the one whose place it takes. Who is not root may
// give it no more than the group, and has to, unless everybody may read it.
func keepOwner(f *os.File, was fs.FileInfo) error {
	of, ok := was.Sys().(*syscall.Stat_t)
	if !ok || f.Chown(int(of.Uid), int(of.Gid)) == nil || was.Mode().Perm()&0o004 != 0 {
		return nil
	}
	return f.Chown(-1, int(of.Gid))
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
				return writeJSON(cmd.OutOrStdout(), append([]policyUser{}, p.users...))
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

// userAdding says what user add keeps of whom.
type userAdding struct {
	file                   userFlags
	password, token, scram bool
	replace, beside        bool
}

func userAddCommand() *cobra.Command {
	var a userAdding
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a user to a policy file, whose comments and layout stay",
		Long: `Reads a password, asked for twice at a terminal, else standard input without the
line's end, and adds the user to the policy file with its hash. With --token it makes a
random token instead, for a device, and prints it once. With --scram it keeps the
verifier for SCRAM-SHA-256 in place of the hash; with --password or --token besides,
both, of the same secret. --scram --beside gives a verifier to a user that there is,
whose other credential stays. The file is replaced whole, or not at all; what else
stands there stays as it is. It comes into force as any change of it. A name without a
domain is written with that of --domain.`,
		Example: `  bellwire user add ana@example.com --policy policy.yaml
  printf %s "$PASSWORD" | bellwire user add ana@example.com --replace
  bellwire user add ana@example.com --password --scram
  bellwire user add bob@example.com --scram --beside
  bellwire user add thermo-17 --domain example.com --token`,
		Args: someArgs(1, 1, "the user's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.run(cmd, args[0])
		},
	}
	a.file.register(cmd)
	cmd.Flags().BoolVar(&a.password, "password", false, "keep the password's hash; so it is without --token and --scram")
	cmd.Flags().BoolVar(&a.token, "token", false, "make a token, for a device, and print it")
	cmd.Flags().BoolVar(&a.scram, "scram", false, "keep the verifier for SCRAM-SHA-256, which a password is never sent for")
	cmd.Flags().BoolVar(&a.replace, "replace", false, "other credentials for a user that there is, in place of those that it has")
	cmd.Flags().BoolVar(&a.beside, "beside", false, "with --scram: the verifier for a user that there is, beside what it has")
	return cmd
}

// check says which flags do not go together.
func (a *userAdding) check(cmd *cobra.Command) error {
	for _, two := range [][2]string{{"token", "password"}, {"beside", "token"}, {"beside", "password"}, {"beside", "replace"}} {
		if err := notBoth(cmd, two[0], two[1]); err != nil {
			return err
		}
	}
	if a.beside && !a.scram {
		return usage("--beside is for a verifier: give --scram, too")
	}
	return nil
}

func (a *userAdding) run(cmd *cobra.Command, name string) error {
	if err := a.check(cmd); err != nil {
		return err
	}
	p, err := a.file.read()
	if err == nil {
		_, err = a.find(p, name)
	}
	if err != nil {
		return err
	}
	has, made, err := a.credentials(cmd)
	if err != nil {
		return err
	}
	p, unlock, err := a.file.readLocked() // it may have changed while somebody typed
	if err != nil {
		return err
	}
	defer unlock()
	at, err := a.find(p, name)
	if err == nil {
		name, err = a.change(p, at, name, has)
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
}

// find returns the place of the user, -1 if there is none, and what speaks against the change.
func (a *userAdding) find(p *policyUsers, name string) (at int, err error) {
	at, err = p.find(name)
	switch {
	case err != nil:
	case at < 0 && a.beside:
		err = fail(bw.Usage, "%s is no user of %s, and has nothing for a verifier to be beside", name, p.path).do("leave --beside out; with --password --scram the user has both")
	case at >= 0 && a.beside && slices.Contains(strings.Fields(p.users[at].By), "scram"):
		err = fail(bw.Usage, "%s has a verifier already, in line %d of %s", name, p.users[at].from+1, p.path).do("give --replace in place of --beside to set all credentials anew, with --password or --token if they are to stay two")
	case at >= 0 && !a.beside && !a.replace:
		err = userThere(p, name, at)
	}
	return at, err
}

// change makes the change, and returns the name as the file has it.
func (a *userAdding) change(p *policyUsers, at int, name string, has []credential) (string, error) {
	var by []string
	for _, c := range has {
		by = append(by, c.by())
	}
	made := policyUser{Name: name, By: strings.Join(by, " ")}
	switch {
	case at < 0:
		if p.domain != "" && !strings.Contains(name, "@") {
			made.Name += "@" + p.domain // who reads the file need not be told the domain
		}
		return made.Name, p.replace(p.add(made.Name, has), append(slices.Clone(p.users), made))
	case !a.beside:
		made.Name = p.users[at].Name
		return made.Name, p.replace(p.set(at, has), append(p.without(at), made))
	}
	made.Name, made.By = p.users[at].Name, p.users[at].By+" "+made.By
	lines, err := p.put(at, has[0])
	if err == nil {
		err = p.replace(lines, append(p.without(at), made))
	}
	return made.Name, err
}

func userThere(p *policyUsers, name string, at int) error {
	return fail(bw.Usage, "%s is a user already, in line %d of %s", name, p.users[at].from+1, p.path).do("give --replace to set another password or token, or --scram --beside to add a verifier to it")
}

// credentials reads a password, or makes a token, and returns what a policy keeps of it,
// and the token.
func (a *userAdding) credentials(cmd *cobra.Command) (has []credential, made string, err error) {
	var secret []byte
	if a.token {
		made, err = acl.NewToken(rand.Reader)
		secret = []byte(made)
	} else {
		secret, err = readSecret(cmd.InOrStdin(), cmd.ErrOrStderr(), "password")
	}
	keep := func(key string, token, scram bool) {
		if err != nil {
			return
		}
		var hash string
		hash, err = hashSecret(secret, token, scram, authn.ScramIterations)
		has = append(has, credential{key, hash})
	}
	switch {
	case a.token:
		keep("token_sha256", true, false)
	case a.password || !a.scram:
		keep("password_hash", false, false)
	}
	if a.scram {
		keep("scram_sha256", false, true)
	}
	return has, made, err
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
			lines, err := p.remove(at)
			if err == nil {
				err = p.replace(lines, p.without(at))
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
