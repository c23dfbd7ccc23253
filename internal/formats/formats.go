// Package formats reads the list of formats that versions of the program had,
// docs/formats.md, and gets the sources of one of them from the history. It is for
// tests, and for what runs them.
package formats

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// List is the file, from the root of the tree.
const List = "docs/formats.md"

// A Format is one line of it.
type Format struct {
	Level  int
	Commit string // 40 digits; empty until there is a version in use that has it
}

var line = regexp.MustCompile(`^\| (\d+) \| (?:([0-9a-f]{40})|–) \| \S.* \|$`)

// Read reads the list of the tree at root: levels from 1 on without gaps, of which
// only the last ones may have no commit.
func Read(root string) (all []Format, err error) {
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(List)))
	if err != nil {
		return nil, err
	}
	for s := range strings.Lines(string(text)) {
		s = strings.TrimSpace(s)
		m := line.FindStringSubmatch(s)
		if m == nil {
			if len(s) > 2 && s[0] == '|' && s[2] >= '0' && s[2] <= '9' {
				return nil, fmt.Errorf("%s: %q is no line of level, commit and what it brings", List, s)
			}
			continue
		}
		f := Format{Commit: m[2]}
		f.Level, _ = strconv.Atoi(m[1])
		if f.Level != len(all)+1 {
			return nil, fmt.Errorf("%s: level %d comes after %d others", List, f.Level, len(all))
		}
		if n := len(all); n > 0 && all[n-1].Commit == "" && f.Commit != "" {
			return nil, fmt.Errorf("%s: level %d has a commit, and the one before it has none", List, f.Level)
		}
		all = append(all, f)
	}
	if len(all) == 0 || all[0].Commit == "" {
		return nil, fmt.Errorf("%s: there is no level with a commit", List)
	}
	return all, nil
}

// Last returns the newest of them that has a commit. The first one has.
func Last(all []Format) Format {
	last := all[0]
	for _, f := range all {
		if f.Commit != "" {
			last = f
		}
	}
	return last
}

// Missing says why the sources of a commit cannot be had from the history that the
// tree at root has, and what would help; empty if they can.
func Missing(root, commit string) string {
	if _, err := exec.LookPath("git"); err != nil {
		return "git, to get the sources of an earlier version from the history (apt install git)"
	}
	if _, err := git(root, "rev-parse", "--git-dir"); err != nil {
		return "the history: this is no clone of the repository (" + firstLine(err) + ")"
	}
	if _, err := git(root, "cat-file", "-e", commit+"^{tree}"); err != nil {
		return "commit " + commit + " in the history (git fetch --unshallow)"
	}
	return ""
}

// Follows says whether the tree at root was made from commit: whether that is in the
// history of what is checked out. Without all of the history (Missing) it is not known.
func Follows(root, commit string) bool {
	_, err := git(root, "merge-base", "--is-ancestor", commit, "HEAD")
	return err == nil
}

// Show returns a file as it was at a commit; fs.ErrNotExist if there was none.
func Show(root, commit, path string) (string, error) {
	names, err := git(root, "ls-tree", "--name-only", "--full-tree", commit, "--", path)
	if err != nil {
		return "", err
	}
	if strings.TrimSpace(names) == "" {
		return "", fmt.Errorf("%s at %s: %w", path, commit, os.ErrNotExist)
	}
	return git(root, "show", commit+":"+path)
}

// Tags returns the commits of the tags that begin with format-, by name. A clone may
// have none.
func Tags(root string) (map[string]string, error) {
	out, err := git(root, "for-each-ref", "--format=%(refname:strip=2) %(objectname) %(*objectname)", "refs/tags/format-*")
	if err != nil {
		return nil, err
	}
	tags := map[string]string{}
	for s := range strings.Lines(out) {
		f := strings.Fields(s)
		tags[f[0]] = f[len(f)-1] // of an annotated tag: what it is put on
	}
	return tags, nil
}

// Unpack writes the tree of a commit into dir.
func Unpack(root, commit, dir string) (err error) {
	c := exec.Command("git", "-C", root, "archive", "--format=tar", commit)
	var errs strings.Builder
	c.Stderr = &errs
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		return err
	}
	err = unpack(out, dir)
	if err != nil {
		_ = c.Process.Kill()
	}
	if wait := c.Wait(); wait != nil {
		err = errors.Join(err, fmt.Errorf("git archive: %w %s", wait, errs.String()))
	}
	return err
}

func unpack(r io.Reader, dir string) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r) // what pads the archive
			return err
		}
		if err != nil {
			return err
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		if !filepath.IsLocal(filepath.FromSlash(h.Name)) {
			return fmt.Errorf("git archive: %q", h.Name)
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeReg:
			err = write(path, t)
		}
		if err != nil {
			return err
		}
	}
}

func write(path string, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

func git(root string, args ...string) (string, error) {
	c := exec.Command("git", append([]string{"-C", root}, args...)...)
	var errs strings.Builder
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()))
	}
	return string(out), nil
}

func firstLine(err error) string {
	s, _, _ := strings.Cut(err.Error(), "\n")
	return s
}
