package formats

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/broker"
)

const root = "../.."

// The list has a line for each level that the program knows, its commits are in the
// history, and tags are where it says.
func TestFormats(t *testing.T) {
	all, err := Read(root)
	if err != nil {
		t.Fatal(err)
	}
	if newest := all[len(all)-1].Level; newest != int(broker.NewestLevel) {
		t.Errorf("%s ends with level %d, and the program knows %d", List, newest, broker.NewestLevel)
	}
	last := Last(all)
	if why := Missing(root, last.Commit); why != "" {
		t.Skip("missing: " + why)
	}
	for _, f := range all {
		if f.Commit != "" && !Follows(root, f.Commit) {
			t.Errorf("level %d is said to be of %s, which is not in the history of this version", f.Level, f.Commit)
		}
	}
	tags, err := Tags(root)
	if err != nil {
		t.Fatal(err)
	}
	for tag, commit := range tags {
		i := slices.IndexFunc(all, func(f Format) bool { return "format-"+strconv.Itoa(f.Level) == tag })
		if i < 0 || all[i].Commit != commit {
			t.Errorf("tag %s is on %s, of which %s says nothing", tag, commit, List)
		}
	}
}

// What was written by a version in use is written and read by all later ones: no
// golden line of it has changed. What was added since is of a later level, which
// has a line in the list.
func TestGoldenFormsAreListed(t *testing.T) {
	all, err := Read(root)
	if err != nil {
		t.Fatal(err)
	}
	last := Last(all)
	if why := Missing(root, last.Commit); why != "" {
		t.Skip("missing: " + why)
	}
	files := goldenFiles(t)
	if len(files) < 7 {
		t.Fatalf("only these golden files were found: %q", files)
	}
	for _, path := range files {
		data, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		now := string(data)
		was, err := Show(root, last.Commit, filepath.ToSlash(path))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if now != was && last.Level == all[len(all)-1].Level {
			t.Errorf("%s has changed since level %d (%.12s), and %s has no level after it", path, last.Level, last.Commit, List)
		}
		kept := strings.Split(now, "\n")
		for line := range strings.Lines(was) {
			if line = strings.TrimSuffix(line, "\n"); !slices.Contains(kept, line) {
				t.Errorf("%s: what level %d wrote is gone or changed: %q", path, last.Level, line)
			}
		}
	}
}

// goldenFiles returns the files that hold tests to bytes, from the root.
func goldenFiles(t *testing.T) (files []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" || d.Name() == "bin" {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Base(filepath.Dir(path)) != "testdata" {
			return nil
		}
		if data, err := os.ReadFile(path); filepath.Ext(path) == ".golden" || err == nil && strings.HasPrefix(string(data), "# name/version, ") {
			rel, _ := filepath.Rel(root, path)
			files = append(files, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// A list that leaves something in doubt is refused.
func TestListIsStrict(t *testing.T) {
	const a, b = "| 1 | 0123456789012345678901234567890123456789 | all |\n", "| 2 | – | more |\n"
	for text, want := range map[string]int{
		a: 1, "# text\n\n|---|---|---|\n" + a + b: 2,
		"": 0, b: 0, "| 1 | – | all |\n": 0, a + a: 0, a + "| 3 | – | more |\n": 0, a + "| 2 | 0123 | more |\n": 0,
		a + b + "| 3 | 0123456789012345678901234567890123456789 | more |\n": 0,
	} {
		dir := t.TempDir()
		if err := errors.Join(os.Mkdir(filepath.Join(dir, "docs"), 0o755), os.WriteFile(filepath.Join(dir, List), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
		all, err := Read(dir)
		if len(all) != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %+v, %v, want %d levels", text, all, err, want)
		}
		if want > 0 && Last(all).Level != 1 {
			t.Errorf("%q: the last is %+v", text, Last(all))
		}
	}
}

// The tree of an earlier version comes out of the history whole; where there is no
// history that is said.
func TestUnpack(t *testing.T) {
	all, err := Read(root)
	if err != nil {
		t.Fatal(err)
	}
	if why := Missing(t.TempDir(), all[0].Commit); !strings.Contains(why, "no clone") {
		t.Errorf("of a folder that is no clone: %q", why)
	}
	if why := Missing(root, all[0].Commit); why != "" {
		t.Skip("missing: " + why)
	}
	if why := Missing(root, strings.Repeat("0", 40)); !strings.Contains(why, "unshallow") {
		t.Errorf("of a commit that is not there: %q", why)
	}
	if Follows(root, strings.Repeat("0", 40)) {
		t.Error("a commit that is not there is in the history")
	}
	dir := t.TempDir()
	if err := Unpack(root, all[0].Commit, dir); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"go.mod", "cmd/bellwire/main.go"} {
		want, err := Show(root, all[0].Commit, path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, path)); err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v, want %d", path, len(got), err, len(want))
		}
	}
}
