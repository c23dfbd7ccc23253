package tidy

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

const root = "../../.."

func tree(t *testing.T) []file {
	t.Helper()
	files, err := readTree(root)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Rooms import each other only as the diagram says, and large dependencies
// have their doors.
func TestImportDirections(t *testing.T) {
	for _, fault := range checkImports(tree(t)) {
		t.Error(fault)
	}
}

// Time is an argument: only the daemon and what runs beside it read the clock.
func TestClockIsHandedIn(t *testing.T) {
	for _, fault := range checkClock(tree(t)) {
		t.Error(fault)
	}
}

func TestRoomsSayWhatTheyAreFor(t *testing.T) {
	for _, fault := range checkComments(tree(t)) {
		t.Error(fault)
	}
}

func TestNoTestSleeps(t *testing.T) {
	for _, fault := range checkSleeps(tree(t)) {
		t.Error(fault)
	}
}

func TestBubblesHaveOneMaker(t *testing.T) {
	for _, fault := range checkBubbles(tree(t)) {
		t.Error(fault)
	}
}

// Every test, benchmark or fuzz target that README or the progress page names
// exists.
func TestPromisesNameTestsThatExist(t *testing.T) {
	names := testNames(tree(t))
	for _, page := range []string{"README.md", "docs/progress.md"} {
		text, err := os.ReadFile(root + "/" + page)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\b(Test|Benchmark|Fuzz)[A-Z][A-Za-z0-9_]*`).FindAllString(string(text), -1) {
			if !names[name] {
				t.Errorf("%s names %s, which does not exist", page, name)
			}
		}
	}
}

// No shipped file passes 800 lines: a crowded room is redrawn.
func TestFilesStayReadable(t *testing.T) {
	for _, f := range tree(t) {
		text, err := os.ReadFile(root + "/" + f.name)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), "\n"); n > 800 {
			t.Errorf("%s has %d lines, want at most 800", f.name, n)
		}
	}
}

// The rules themselves bite: a tree made to break each of them is refused.
func TestRulesBite(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		p := dir + "/" + name
		if err := os.MkdirAll(p[:strings.LastIndexByte(p, '/')], 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("acl/a.go", "package acl\nimport _ \"github.com/bellwire/bellwire/broker\"\n")
	write("broker/b.go", "package broker\nimport _ \"github.com/hashicorp/raft\"\nimport \"time\"\nvar t = time.Now()\n")
	write("broker/b_test.go", "package broker\nimport \"time\"\nfunc TestX() { time.Sleep(1) }\n")
	write("new/n.go", "package new\n")
	write("disk/d_test.go", "package disk\nimport _ \"github.com/anishathalye/porcupine\"\nimport \"testing/synctest\"\nfunc TestY() { synctest.Test(nil, nil) }\n")
	write("blackbox/x.go", "package blackbox\nimport _ \"github.com/anishathalye/porcupine\"\n")
	write("blackbox/x_test.go", "package blackbox\nimport _ \"github.com/anishathalye/porcupine\"\n")
	write("internal/bubble/b.go", "package bubble\nimport \"testing/synctest\"\nvar T = synctest.Test\n")
	files, err := readTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := checkImports(files); len(got) != 5 {
		t.Errorf("imports: got %d faults %q, want 5: acl->broker, raft outside its door, unknown room, "+
			"what serves blackbox's tests in a test elsewhere and in a shipped file", len(got), got)
	}
	if got := checkClock(files); len(got) != 1 {
		t.Errorf("clock: got %q, want one fault", got)
	}
	if got := checkSleeps(files); len(got) != 1 {
		t.Errorf("sleeps: got %q, want one fault", got)
	}
	if got := checkBubbles(files); len(got) != 1 {
		t.Errorf("bubbles: got %q, want one fault", got)
	}
	if got := checkComments(files); len(got) != 5 {
		t.Errorf("comments: got %q, want five faults", got)
	}
}
