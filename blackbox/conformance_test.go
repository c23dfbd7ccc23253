package blackbox

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A statement is a normative statement of one of the standards, [MQTT-x.y.z-n].
type statement struct {
	id, binds, says string
}

// withoutTest are the statements that bind a server and that no test keeps, with the
// reason. There are none.
var withoutTest = map[string]map[string]string{"5": {}, "3.1.1": {}}

const conformanceFile = "../docs/mqtt-conformance.md"

// Each normative statement of MQTT 5.0 and 3.1.1 that binds a server is kept by a
// test, whose comment says so ("MQTT 5: 3.1.0-1, 3.1.0-2."), or by a line of
// testdata/malformed; and so is each behaviour of the list of those in which brokers
// fail, by a test of its number (TestMQTT09..., or one that says so). docs/mqtt-conformance.md
// tells which, and is what this test writes (-rewrite).
func TestConformance(t *testing.T) {
	kept := keptBy(t)
	var b strings.Builder
	b.WriteString(`# What keeps us to the standards

Which test keeps which normative statement, [MQTT-x.y.z-n], of MQTT 5.0 and of MQTT 3.1.1, in words of our own: each speaks to the built program as a client does, but for
those that begin with ` + "`mqtt.`" + `, which are in ` + "`broker/mqtt`" + ` and have a broker in memory. ` + "`malformed/...`" + ` are the lines of the tables in ` + "`blackbox/testdata/malformed`" + `, which
TestMalformed plays. Beside these, the client of ` + "`mqtttest`" + ` with which all tests speak judges each packet it receives: flags, lengths, strings, properties and reason codes
that may not stand there are errors in whatever test they turn up. Written by ` + "`go test ./blackbox -run TestConformance -rewrite`" + `, and checked by the same test.
`)
	for _, v := range []struct{ version, file string }{{"5", "mqtt5.txt"}, {"3.1.1", "mqtt311.txt"}} {
		fmt.Fprintf(&b, "\n## MQTT %s\n\n| statement | what | kept by |\n|---|---|---|\n", v.version)
		for _, s := range readStatements(t, v.file) {
			fmt.Fprintf(&b, "| MQTT-%s | %s | %s |\n", s.id, s.says, keeps(t, v.version, s, kept[v.version][s.id]))
			delete(kept[v.version], s.id)
		}
		for id, tests := range kept[v.version] {
			t.Errorf("%s: MQTT %s has no statement %s", tests[0], v.version, id)
		}
	}
	b.WriteString("\n## What brokers fail in\n\nBehaviours that are asked of a broker beyond the letter of the standards, or in which others fail, by number.\n\n| | what | shown by |\n|---|---|---|\n")
	for _, item := range readItems(t) {
		tests := kept["item"][item.id]
		if len(tests) == 0 {
			t.Errorf("item %s has no test: %s", item.id, item.says)
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", item.id, item.says, strings.Join(tests, ", "))
	}
	if *rewrite {
		if err := os.WriteFile(conformanceFile, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile(conformanceFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(written) != b.String() {
		t.Error("docs/mqtt-conformance.md is not what the tests say: write it anew (-rewrite) and look at the difference")
	}
}

// keeps is the last cell of a statement's row.
func keeps(t *testing.T, version string, s statement, tests []string) string {
	t.Helper()
	why, listed := withoutTest[version][s.id]
	switch {
	case s.binds != "server" && len(tests) > 0:
		t.Errorf("MQTT %s %s binds no server like this one, and %s is said to keep it", version, s.id, tests[0])
	case s.binds == "client":
		return "– (clients)"
	case s.binds == "other":
		return "– (other servers)"
	case len(tests) == 0 && !listed:
		t.Errorf("MQTT %s %s has no test: %s", version, s.id, s.says)
	case len(tests) > 0 && listed:
		t.Errorf("MQTT %s %s is kept by %s, and listed as without a test", version, s.id, tests[0])
	case listed:
		return "no test: " + why
	}
	return strings.Join(tests, ", ")
}

func readStatements(t *testing.T, file string) (all []statement) {
	t.Helper()
	for _, line := range dataLines(t, file) {
		id, rest, _ := strings.Cut(line, " ")
		binds, says, ok := strings.Cut(rest, " ")
		if !ok || !slices.Contains([]string{"server", "client", "other"}, binds) {
			t.Fatalf("%s: %q", file, line)
		}
		all = append(all, statement{id, binds, says})
	}
	return all
}

// readItems returns the numbered behaviours.
func readItems(t *testing.T) (all []statement) {
	t.Helper()
	for _, line := range dataLines(t, "items.txt") {
		id, says, _ := strings.Cut(line, " ")
		all = append(all, statement{id: id, says: says})
	}
	return all
}

// dataLines are the lines of a file of testdata but comments.
func dataLines(t *testing.T, file string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	return lines
}

var (
	keepsMark = regexp.MustCompile(`MQTT (5|3\.1\.1): ((?:[\d.]+-\d+)(?:,\s+[\d.]+-\d+)*)`)
	itemMark  = regexp.MustCompile(`Items? ((?:\d+)(?:, \d+)*)\.`)
	itemName  = regexp.MustCompile(`^TestMQTT(\d\d)[A-Z]`)
)

// keptBy returns, by version ("item" for numbered behaviours) and statement, the tests
// that keep it, and the tables.
func keptBy(t *testing.T) map[string]map[string][]string {
	t.Helper()
	kept := map[string]map[string][]string{"5": {}, "3.1.1": {}, "item": {}}
	note := func(of, id, test string) {
		if !slices.Contains(kept[of][id], test) {
			kept[of][id] = append(kept[of][id], test)
		}
	}
	for prefix, pattern := range map[string]string{"": "*_test.go", "mqtt.": "../broker/mqtt/*_test.go"} {
		for name, comment := range testComments(t, pattern) {
			for _, m := range keepsMark.FindAllStringSubmatch(comment, -1) {
				for id := range strings.SplitSeq(m[2], ",") {
					note(m[1], strings.TrimSpace(id), prefix+name)
				}
			}
			for _, m := range itemMark.FindAllStringSubmatch(comment, -1) {
				for id := range strings.SplitSeq(m[1], ", ") {
					note("item", id, prefix+name)
				}
			}
			if m := itemName.FindStringSubmatch(name); m != nil {
				n, _ := strconv.Atoi(m[1])
				note("item", strconv.Itoa(n), prefix+name)
			}
		}
	}
	for _, m := range malformations(t) {
		for v, ids := range m.keeps {
			for _, id := range ids {
				note(map[byte]string{v4: "3.1.1", v5: "5"}[v], id, "malformed/"+m.file)
			}
		}
	}
	for _, of := range kept {
		for id := range maps.Keys(of) {
			slices.Sort(of[id])
		}
	}
	return kept
}

// testComments returns the tests of the files, with their comments in one line each.
func testComments(t *testing.T, pattern string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(files), err)
	}
	comments := map[string]string{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				comments[f.Name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
			}
		}
	}
	return comments
}
