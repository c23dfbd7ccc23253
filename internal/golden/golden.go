// Package golden holds tests to the bytes that outlive a program: what was
// written to a disk or a log by one version is read by the next, so it does not
// change unnoticed. The bytes stand in files below the testdata folder of the
// test's package.
//
// `go test -rewrite` writes the files anew. Commit only a difference that you
// understand: a line that changes is a store of yesterday that cannot be read.
package golden

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/cockroachdb/datadriven" // for its flag -rewrite, which is ours too
)

func rewriting() bool {
	f := flag.Lookup("rewrite")
	return f != nil && f.Value.String() == "true"
}

// File compares got with the file testdata/name.
func File(t testing.TB, name string, got []byte) {
	t.Helper()
	if want := file(t, name, got); !bytes.Equal(got, want) {
		t.Errorf("%s: the bytes have changed: what a program of yesterday wrote cannot be read.\ngot\n%s\nwant\n%s", name, got, want)
	}
}

// file returns what testdata/name has, after writing got if that is wanted.
func file(t testing.TB, name string, got []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if rewriting() {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(path, got, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return want
}

// A Form is one value that is stored. Its name ends in the version of the
// program that first wrote it so, and a form that changes gets another name:
// lines are added, never changed.
type Form struct {
	Name  string
	Bytes []byte
}

// Forms compares forms with the lines of the file testdata/name, and wants both
// to have the same names. It returns the bytes that the file has for each,
// which must be read as what they meant.
func Forms(t testing.TB, name string, forms []Form) map[string][]byte {
	t.Helper()
	var b bytes.Buffer
	fmt.Fprintln(&b, "# name/version, the version of the form, and its bytes. Lines are added, never changed.")
	for _, f := range forms {
		fmt.Fprintf(&b, "%s %x\n", f.Name, f.Bytes)
	}
	stored := map[string][]byte{}
	for s := bufio.NewScanner(bytes.NewReader(file(t, name, b.Bytes()))); s.Scan(); {
		if strings.HasPrefix(s.Text(), "#") {
			continue
		}
		form, digits, _ := strings.Cut(s.Text(), " ")
		was, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatalf("%s: %s: %v", name, form, err)
		}
		stored[form] = was
	}
	known := map[string]bool{}
	for _, f := range forms {
		known[f.Name] = true
		switch want, ok := stored[f.Name]; {
		case !ok:
			t.Errorf("%s: no line in %s: run with -rewrite and look at what changes", f.Name, name)
		case !bytes.Equal(f.Bytes, want):
			t.Errorf("%s is stored as\n%x, want\n%x", f.Name, f.Bytes, want)
		}
	}
	for form := range stored {
		if !known[form] {
			t.Errorf("%s is on disks and nobody reads it any more", form)
		}
	}
	return stored
}
