package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/bellwire/bellwire/internal/effort"
)

// An event is one line of `go test -json`.
type event struct {
	Action     string
	Package    string
	Test       string
	Elapsed    float64 // seconds
	Output     string
	Key, Value string // of an attribute
	ImportPath string // of a build that failed
}

// A result is what became of one package under one way of testing it.
type result struct {
	pkg     string
	mode    string // "", or "race"
	tests   int    // tests and subtests that passed or failed
	failed  int
	skipped []skip
	soaked  map[string]progress // by test
	took    time.Duration
	aside   bool // it took what others left, and so has no budget of its own
	ok      bool
}

// A progress is how far a test has come that tries many seeds.
type progress struct {
	tried int
	seeds string
	shown time.Time // when somebody was told last
}

// showEvery is how often it is shown how far a test has come.
const showEvery = 30 * time.Second

// A skip is a test that did not run, and what it said about it.
type skip struct{ test, why string }

// goTest runs `go test -json` with args and returns a result for each package
// that has tests. It prints a line for each finished package, and the output
// of what failed.
func goTest(ctx context.Context, out io.Writer, root string, aside bool, mode string, env []string, args ...string) ([]result, error) {
	args = append([]string{"test", "-json"}, args...)
	fmt.Fprintf(out, "== go %s\n", strings.Join(args, " "))
	c := goCommand(ctx, aside, args...)
	c.Dir, c.Env, c.Stderr = root, append(os.Environ(), env...), os.Stderr
	stdout, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	t := newTally(mode, out)
	readErr := t.read(stdout)
	waitErr := c.Wait()
	if readErr != nil {
		return t.results, fmt.Errorf("go test: its output: %w", readErr)
	}
	// A failed test is in the results. An exit code without one (a build that
	// broke, a tool that died) must not pass for success.
	if waitErr != nil && !slices.ContainsFunc(t.results, func(r result) bool { return !r.ok }) {
		return t.results, fmt.Errorf("go test: %w", waitErr)
	}
	return t.results, nil
}

// A tally follows a stream of events.
type tally struct {
	mode    string
	out     io.Writer
	open    map[string]*result
	lines   map[string][]string // package and test to its output so far
	results []result            // in the order in which packages finished
}

func newTally(mode string, out io.Writer) *tally {
	return &tally{mode: mode, out: out, open: map[string]*result{}, lines: map[string][]string{}}
}

func (t *tally) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("%w in %q", err, lines.Text())
		}
		t.take(e)
	}
	return lines.Err()
}

func (t *tally) take(e event) {
	if e.Action == "build-output" {
		fmt.Fprint(t.out, e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	p := t.open[e.Package]
	if p == nil {
		p = &result{pkg: e.Package, mode: t.mode, soaked: map[string]progress{}}
		t.open[e.Package] = p
	}
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		t.lines[key] = append(t.lines[key], e.Output)
		return
	case "attr":
		t.attribute(p, e)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	if e.Test == "" {
		t.finish(p, e)
		return
	}
	switch e.Action {
	case "pass":
		p.tests++
	case "fail":
		p.tests++
		p.failed++
		fmt.Fprint(t.out, strings.Join(t.lines[key], ""))
	case "skip":
		p.skipped = append(p.skipped, skip{e.Test, reason(t.lines[key])})
	}
	delete(t.lines, key)
}

// attribute takes what a test tells of itself.
func (t *tally) attribute(p *result, e event) {
	how := p.soaked[e.Test]
	switch e.Key {
	case effort.Range:
		how.seeds = e.Value
	case effort.Tried:
		how.tried, _ = strconv.Atoi(e.Value) // 0 is as good an answer to what is none
		if now := time.Now(); how.shown.IsZero() {
			how.shown = now
		} else if now.Sub(how.shown) >= showEvery {
			how.shown = now
			fmt.Fprintf(t.out, "%s\t%s %s: %d tried\n", now.Format(time.TimeOnly), short(p.pkg), e.Test, how.tried)
		}
	}
	p.soaked[e.Test] = how
}

func (t *tally) finish(p *result, e event) {
	delete(t.open, e.Package)
	p.ok = e.Action != "fail"
	p.took = time.Duration(e.Elapsed * float64(time.Second))
	if e.Action == "skip" { // no test files
		return
	}
	word := "ok  "
	if !p.ok {
		word = "FAIL"
		fmt.Fprint(t.out, strings.Join(t.lines[e.Package+" "], ""))
		// A test that never ended (a time-out, a crash) has no event of its
		// own, and its output is what tells why.
		for key, lines := range t.lines {
			if strings.HasPrefix(key, e.Package+" Test") || strings.HasPrefix(key, e.Package+" Fuzz") {
				fmt.Fprint(t.out, strings.Join(lines, ""))
			}
		}
	}
	for key := range t.lines {
		if strings.HasPrefix(key, e.Package+" ") {
			delete(t.lines, key)
		}
	}
	t.results = append(t.results, *p)
	fmt.Fprintf(t.out, "%s\t%s%s\t%.3fs\n", word, p.pkg, inMode(p.mode), p.took.Seconds())
}

func inMode(mode string) string {
	if mode == "" {
		return ""
	}
	return " -" + mode
}

// reason returns what t.Skip was given: the last line that is none of go
// test's own.
func reason(lines []string) string {
	for _, line := range slices.Backward(lines) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") {
			if _, after, ok := strings.Cut(line, ".go:"); ok {
				if _, text, ok := strings.Cut(after, ": "); ok {
					return text
				}
			}
			return line
		}
	}
	return "no reason given"
}

// printTable shows what was tested: a line per package and way of testing it.
func printTable(out io.Writer, results []result) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "package\ttests\tfailed\tskipped\ttime\t")
	var sum result
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%.1fs\t\n", short(r.pkg)+inMode(r.mode), r.tests, r.failed, len(r.skipped), r.took.Seconds())
		sum.tests += r.tests
		sum.failed += r.failed
		sum.skipped = append(sum.skipped, r.skipped...)
		sum.took += r.took
	}
	fmt.Fprintf(w, "all\t%d\t%d\t%d\t%.1fs\t\n", sum.tests, sum.failed, len(sum.skipped), sum.took.Seconds())
	w.Flush()
}

func short(pkg string) string {
	return strings.TrimPrefix(pkg, module+"/")
}
