package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// limitsTable is the table of docs/limits.md as the code has it.
func limitsTable(t *testing.T) string {
	t.Helper()
	defaults, err := limits{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("| limit | default | past it | changes | counted (`limit=`) | shown by |\n|---|---|---|---|---|---|\n")
	for i := range limitRows {
		row := &limitRows[i]
		fact, ok := limitFacts[row.name]
		if !ok {
			t.Errorf("%s: nothing is said of it", row.name)
			continue
		}
		changes, counted := cmp.Or(hangupRows[row.name], "at a start"), "–"
		if row.isAgreed() {
			changes = "SIGHUP, for all nodes"
		}
		if fact.hits != nil {
			counted = row.name
			if fact.shared != "" {
				counted = "with " + fact.shared
			}
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", row.name, row.text(fact.value(&defaults)), fact.over, changes, counted, fact.keeper)
	}
	return b.String()
}

// The table of limits says what the code does: each row with its default, what becomes of
// what is past it, and a test that there is.
func TestLimitsPage(t *testing.T) {
	const path, begin, end = "../../docs/limits.md", "<!-- limits -->\n", "<!-- end -->"
	page := readFile(t, path)
	before, rest, ok := strings.Cut(page, begin)
	was, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", path)
	}
	is := limitsTable(t)
	if flag.Lookup("rewrite").Value.String() == "true" {
		if err := os.WriteFile(path, []byte(before+begin+is+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if was != is {
		t.Errorf("%s is not what the code says: go test ./cmd/bellwire -run TestLimitsPage -rewrite", path)
	}
	if len(limitFacts) != len(limitRows) {
		t.Errorf("%d rows, and of %d something is said", len(limitRows), len(limitFacts))
	}
	for name := range hangupRows {
		if at := slices.IndexFunc(limitRows, func(row limitRow) bool { return row.name == name }); at < 0 || limitRows[at].isAgreed() {
			t.Errorf("%s is no row of a node's own", name)
		}
	}
	tests := testNames(t)
	for i := range limitRows {
		fact := limitFacts[limitRows[i].name]
		if !tests[fact.keeper] {
			t.Errorf("%s: there is no %s", limitRows[i].name, fact.keeper)
		}
		if of := limitFacts[fact.shared]; fact.shared != "" && (of.hits == nil || of.shared != "") {
			t.Errorf("%s is counted with %s, which is not", limitRows[i].name, fact.shared)
		}
		var one limits
		limitRows[i].set(&one, limitRows[i].most)
		if filled, err := one.withDefaults(); err != nil || fact.value(&filled) != limitRows[i].most {
			t.Errorf("%s: its value reads as %d, set to %d (%v)", limitRows[i].name, fact.value(&filled), limitRows[i].most, err)
		}
	}
}

// testNames are those of all tests of the module.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() && slices.Contains([]string{".git", "bin", "testdata"}, d.Name()) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		for line := range bytes.Lines(text) {
			if name, ok := strings.CutPrefix(string(line), "func "); ok && strings.HasPrefix(name, "Test") {
				name, _, _ = strings.Cut(name, "(")
				names[name] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
