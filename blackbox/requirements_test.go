package blackbox

import (
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write docs/requirements.md anew")

// A requirement is a row that is to be shown: by tests whose names begin with
// it, or not yet.
type requirement struct {
	row    int
	says   string
	notYet string // why no test shows it
}

var requirements = []requirement{
	{row: 4, says: "One address, many devices, composed state; a device that dies is out of it within its keep-alive bound."},
	{row: 6, says: "Entities other than human users are presentities."},
	{row: 7, says: "Kinds of a third party, in Go, served like those that come with the program."},
	{row: 22, says: "My boss can subscribe to me between eight and five only."},
	{row: 27, says: "Instant messages are delivered in order, once, through the death of the node."},
	{row: 29, says: "Location is shared with consent, and as exactly as that says."},
	{row: 35, says: "Different people are told different things, and cannot tell."},
	{row: 41, says: "A process publishes for somebody, as a delegate, what it was given to publish."},
	{row: 49, says: "An inbox: others send, its owner and delegates read."},
	{row: 50, says: "One client is watcher, presentity, sender and inbox."},
	{row: 53, says: "Presence says whether, and how, somebody can be reached."},
	{row: 55, says: "Instant messages need no presence."},
	{row: 56, says: "The kinds of an address are independent of each other."},
	{row: 62, says: "Push and pull: the same view by subscription and by HTTP."},
}

const requirementsFile = "../docs/requirements.md"

// Each row is shown by a test that has it in its name, or is listed with the
// reason why none does; docs/requirements.md says so.
func TestRequirements(t *testing.T) {
	tests := rowTests(t)
	var b strings.Builder
	b.WriteString(`# Requirements

Which test shows which row: each speaks to the built program as a client does. Written by ` + "`go test ./blackbox -run TestRequirements -rewrite`" + ` from
the tests' names and comments, and checked by the same test.

| row | what | shown by |
|---|---|---|
`)
	for _, r := range requirements {
		shown := tests[r.row]
		delete(tests, r.row)
		var cell []string
		for _, s := range shown {
			cell = append(cell, fmt.Sprintf("%s: %s", s.name, s.says))
		}
		switch {
		case len(shown) == 0 && r.notYet == "":
			t.Errorf("row S%d: no test is called TestS%d…, and no reason is given", r.row, r.row)
		case len(shown) > 0 && r.notYet != "":
			t.Errorf("row S%d is shown by %s, and said not to be: %s", r.row, shown[0].name, r.notYet)
		case len(shown) == 0:
			cell = []string{"not yet: " + r.notYet}
		}
		fmt.Fprintf(&b, "| S%d | %s | %s |\n", r.row, r.says, strings.Join(cell, "<br>"))
	}
	for row, shown := range tests {
		t.Errorf("%s: row S%d is not in the table of requirements", shown[0].name, row)
	}
	if *rewrite {
		if err := os.WriteFile(requirementsFile, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile(requirementsFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(written) != b.String() {
		t.Error("docs/requirements.md is not what the tests say: write it anew (-rewrite) and look at the difference")
	}
}

// A rowTest is a test that shows a row, and the first sentence of its comment.
type rowTest struct{ name, says string }

var (
	rowName       = regexp.MustCompile(`^TestS(\d+)[A-Z]`)
	firstSentence = regexp.MustCompile(`(?s)^.*?\.(\s|$)`)
)

// rowTests returns the tests of this package whose names begin with a row.
func rowTests(t *testing.T) map[int][]rowTest {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[int][]rowTest{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil {
				continue
			}
			m := rowName.FindStringSubmatch(f.Name.Name)
			if m == nil {
				continue
			}
			row, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			says := strings.Join(strings.Fields(firstSentence.FindString(f.Doc.Text())), " ")
			if says == "" {
				t.Errorf("%s has no comment that says what it shows", f.Name.Name)
			}
			tests[row] = append(tests[row], rowTest{f.Name.Name, says})
		}
	}
	for _, of := range tests {
		slices.SortFunc(of, func(a, b rowTest) int { return cmp.Compare(a.name, b.name) })
	}
	return tests
}
