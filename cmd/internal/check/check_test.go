package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/formats"
)

func writeTree(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// ownModule has go take a tree's go.mod as it finds it, and else compile as it does here:
// another flag would have all of the standard library compiled once more.
func ownModule() string {
	return "GOFLAGS=" + strings.TrimSpace(os.Getenv("GOFLAGS")+" -mod=mod")
}

// A data race of a process that a test has started, and of which it takes no
// notice, is seen.
func TestRacesOfChildrenAreSeen(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("missing: gcc, run make setup")
	}
	root := writeTree(t, map[string]string{
		"go.mod": "module example.com/m\n\ngo 1.26.0\n",
		"m_test.go": `package m

import (
	"os"
	"os/exec"
	"testing"
)

var shared int

func TestParent(t *testing.T) {
	if os.Getenv("CHILD") == "" {
		child := exec.Command(os.Args[0], "-test.run=^TestParent$")
		child.Env = append(os.Environ(), "CHILD=1")
		_ = child.Run()
		return
	}
	// Often: of two accesses in the very same moment the detector may see neither.
	over := make(chan struct{})
	touch := func() {
		for range 10_000 {
			shared++
		}
	}
	go func() { touch(); close(over) }()
	touch()
	<-over
}
`,
	})
	reports := t.TempDir()
	var printed bytes.Buffer
	results, err := goTest(t.Context(), &printed, root, false, "race", []string{ownModule(), "CGO_ENABLED=1", raceLog(reports)}, "-count=1", "-race", "./...")
	if err != nil || len(results) != 1 || !results[0].ok {
		t.Fatalf("the test itself is to pass: %+v, %v\n%s", results, err, &printed)
	}
	if err := races(&printed, reports); err == nil || !strings.Contains(printed.String(), "WARNING: DATA RACE") {
		t.Errorf("got %v, and printed\n%s", err, &printed)
	}
	if err := races(&printed, t.TempDir()); err != nil {
		t.Errorf("without a race: %v", err)
	}
}

// A real run of go test over a module in which tests pass, fail, skip, panic
// and do not compile: each is seen for what it is.
func TestGoTestIsUnderstood(t *testing.T) {
	root := writeTree(t, map[string]string{
		"go.mod":         "module example.com/m\n\ngo 1.26.0\n",
		"good/g_test.go": "package good\nimport \"testing\"\nfunc TestA(t *testing.T) { t.Run(\"sub\", func(*testing.T) {}) }\n",
		"skip/s_test.go": "package skip\nimport \"testing\"\nfunc TestPowerCutX(t *testing.T) { t.Skipf(\"missing: %s, be root\", \"root\") }\n",
		"fail/f_test.go": "package fail\nimport \"testing\"\nfunc TestF(t *testing.T) { t.Error(\"seven is not eight\") }\n",
		"boom/b_test.go": "package boom\nimport \"testing\"\nfunc TestB(t *testing.T) { panic(\"out of cheese\") }\n",
		"ruin/r_test.go": "package ruin\nfunc f() int { return \"\" }\n",
		"none/n.go":      "package none\n",
	})
	var printed bytes.Buffer
	results, err := goTest(t.Context(), &printed, root, false, "", []string{ownModule()}, "-count=1", "./...")
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(results, func(a, b result) int { return strings.Compare(a.pkg, b.pkg) })
	var got []string
	for _, r := range results {
		word := "FAIL"
		if r.ok {
			word = "ok"
		}
		got = append(got, word+" "+strings.TrimPrefix(r.pkg, "example.com/m/"))
	}
	want := []string{"FAIL boom", "FAIL fail", "ok good", "FAIL ruin", "ok skip"}
	if !slices.Equal(got, want) {
		t.Errorf("packages: got %q, want %q", got, want)
	}
	if r := results[2]; r.tests != 2 {
		t.Errorf("good: %d tests, want TestA and its subtest", r.tests)
	}
	if s := results[4].skipped; len(s) != 1 || s[0] != (skip{"TestPowerCutX", "missing: root, be root"}) {
		t.Errorf("skip: got %q", s)
	}
	for _, say := range []string{"seven is not eight", "out of cheese", "cannot use"} {
		if !strings.Contains(printed.String(), say) {
			t.Errorf("the output hides %q:\n%s", say, &printed)
		}
	}
}

// What fails the gate: a failed package, one past its budget, and every skip
// but the power cut where nobody could do it.
func TestJudge(t *testing.T) {
	const pkg = module + "/disk"
	skips := func(names ...string) result {
		r := result{pkg: pkg, ok: true, tests: 1}
		for _, n := range names {
			r.skipped = append(r.skipped, skip{n, "missing"})
		}
		return r
	}
	for _, c := range []struct {
		name       string
		result     result
		noPowerCut string
		faults     int
	}{
		{"passed", skips(), "", 0},
		{"failed", result{pkg: pkg, failed: 1}, "", 1},
		{"on budget", result{pkg: pkg, ok: true, took: budget[""]}, "", 0},
		{"past budget", result{pkg: pkg, ok: true, took: budget[""] + time.Second}, "", 1},
		{"aside it takes what others leave", result{pkg: pkg, aside: true, ok: true, took: 9 * budget[""]}, "", 0},
		{"race has three times as long", result{pkg: pkg, mode: "race", ok: true, took: budget[""] + time.Second}, "", 0},
		{"any skip", skips("TestOther"), "it needs root", 1},
		{"power cut without root", skips("TestPowerCutOfLoopDevice"), "it needs root", 0},
		{"power cut with root", skips("TestPowerCutOfLoopDevice"), "", 1},
		{"both", skips("TestPowerCutOfLoopDevice", "TestOther"), "it needs root", 1},
	} {
		if got := judge(io.Discard, []result{c.result}, []allowance{{[]string{"TestOld"}, ""}, {[]string{"TestPowerCut"}, c.noPowerCut}}); len(got) != c.faults {
			t.Errorf("%s: got %q, want %d faults", c.name, got, c.faults)
		}
	}
}

// Only where the history of the tree is not there may the tests be skipped that
// need it, and that is said.
func TestHistoryIsNeeded(t *testing.T) {
	const root = "../../.."
	bare := t.TempDir()
	list, err := os.ReadFile(filepath.Join(root, formats.List))
	if err == nil {
		err = os.Mkdir(filepath.Join(bare, "docs"), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(bare, formats.List), list, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	skipped := []result{{pkg: blackbox, ok: true, skipped: []skip{{"TestOldDataIsRead", "missing: the history"}}}}
	var out strings.Builder
	if got := judge(&out, skipped, allowances(bare)); len(got) != 0 || !strings.Contains(out.String(), "TestOldDataIsRead skipped, allowed because this tree lacks the history") {
		t.Errorf("without a history: %q, and it says %q", got, &out)
	}
	if noHistory(root) != "" {
		return // this tree has none: there they may be
	}
	if got := judge(io.Discard, skipped, allowances(root)); len(got) != 1 {
		t.Errorf("with a history: %q, want a fault", got)
	}
}

func TestVerdictNeedsTests(t *testing.T) {
	if err := verdict(io.Discard, nil, nil, time.Second); err == nil {
		t.Error("no test ran, and that passed")
	}
	if err := verdict(io.Discard, []result{{ok: true, tests: 3}}, nil, time.Second); err != nil {
		t.Errorf("three tests passed: %v", err)
	}
}

func TestFuzzTargets(t *testing.T) {
	list := []string{
		"FuzzA", "FuzzB", "ok  \texample.com/x\t0.01s",
		"?   \texample.com/y\t[no test files]",
		"ok  \texample.com/w\t0.01s",
		"FuzzC", "ok  \texample.com/z\t0.01s",
	}
	want := []target{{"example.com/x", "FuzzA"}, {"example.com/x", "FuzzB"}, {"example.com/z", "FuzzC"}}
	if got := fuzzTargets(list); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The end of the time is no finding; an input that fails is one.
func TestEndedLate(t *testing.T) {
	const late = "--- FAIL: FuzzX (61.04s)\n    context deadline exceeded\nFAIL\n"
	for said, want := range map[string]bool{
		late: true,
		"--- FAIL: FuzzX (3.04s)\n    --- FAIL: FuzzX (0.00s)\n        x_test.go:9: seven\n    \n    Failing input written to testdata/fuzz/FuzzX/5\n": false,
		late + "    Failing input written to testdata/fuzz/FuzzX/5\n":                                                                                  false,
		"ok  \texample.com/x\t61s\n": false,
	} {
		if got := endedLate(said); got != want {
			t.Errorf("%q: %v, want %v", said, got, want)
		}
	}
}
