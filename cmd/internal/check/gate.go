package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bellwire/bellwire/internal/formats"
)

const module = "github.com/bellwire/bellwire"

// The tools, pinned. A newer version is a commit of its own.
const (
	gofumpt     = "mvdan.cc/gofumpt@v0.12.0"
	staticcheck = "honnef.co/go/tools/cmd/staticcheck@v0.8.2"
	deadcode    = "golang.org/x/tools/cmd/deadcode@v0.52.0"
)

// budget is how long the tests of one package may take, with and without
// -race: a package that grows past it makes everybody wait, and belongs into
// soak. The default is for rooms without a line.
var budget = map[string]time.Duration{
	"":       2 * time.Minute,
	blackbox: 8 * time.Minute, // a dozen of its tests wait for real time-outs
}

// blackbox is the package that starts the built binary and measures what it
// does. It has the machine to itself, and does not run again under -race, which
// would watch only the client side.
const blackbox = module + "/blackbox"

// measures is the package that compares servers by what they do in a second. It
// finds out nothing beside others; under -race it does, for there it is its own
// program that is tested.
const measures = module + "/bench"

// external are its tests that play other people's suites, which do not come
// with this tree: they belong to conformance.
const external = "^TestPacketSequences$"

// loadsTheBinary are tests that start the built binary and load it for real: the race
// detector sees their own side only, which others of bench show it, and makes that
// so slow that it is itself what is measured.
const loadsTheBinary = "^TestRows?Against"

// withoutRace are those, such as do much in one goroutine, where there is nothing to find,
// and one whose goroutines others have, too. Soak does not leave them out.
const withoutRace = loadsTheBinary + "|" +
	"^Test(EntryKeepsToItsBudget|SharedBesideWhatIsOwed|PoliciesAreBounded|PartsAreBounded|AuditIsBounded|SharedReturnedWithoutEnd|" +
	"Profile|SurvivorsAreCopied|EverySecondJob|ModelSeedIsAHistory|SweepIsBounded|GapsOfAGroupAreBounded|TimeIsNotDelayedByPurges|" +
	"SnapshotsGoOn|LoweredBoundIsTrimmedInPieces|OwedResourcesAreBounded|AbsentSessionsCostNothing|PendingIsBounded|CompareIsBounded|" +
	"AskersAreBounded|DenialsAreBounded|EveryChangeOfEveryZone|TrapDamagedTail)$"

// timeless are the packages whose tests wait for nothing that takes time: they compute,
// or live in bubbles, and may be kept waiting.
var timeless = []string{
	module + "/acl", module + "/broker", module + "/broker/store", module + "/broker/topic", module + "/cluster/clustertest",
	module + "/internal/bubble", module + "/profiles/policy", module + "/profiles/state",
}

// What the tests wait for, time-outs of clusters and disks that sync, takes longer
// than what they compute: more packages at once than there are processors, and of
// blackbox more tests. Under the race detector they compute.
const (
	packagesAtOnce = "-p=4"
	packagesInRace = "-p=3"
	testsAtOnce    = 8 // where there is room for as many, see atOnce
)

// asBuilt has tests that start a server take the binary that build has made.
func asBuilt(root string) []string {
	return []string{"BELLWIRE_BINARY=" + filepath.Join(root, "bin", "bellwire")}
}

// compileOnce has all that is run from now on compile as build does, until restore is
// called: a machine with an empty cache spends more time on compiling than on testing,
// and would otherwise compile everything twice before it comes to the race detector,
// which needs cgo. Nor does it matter then where the tree lies. What only debuggers read
// is left out, a tenth of the work: build strips it anyhow.
func compileOnce() (restore func(), err error) {
	flags, cgo := os.Getenv("GOFLAGS"), os.Getenv("CGO_ENABLED")
	set := func(flags, cgo string) error {
		return errors.Join(os.Setenv("GOFLAGS", flags), os.Setenv("CGO_ENABLED", cgo))
	}
	if err := set(strings.TrimSpace(flags+" -trimpath -gcflags=all=-dwarf=false"), "0"); err != nil {
		return nil, err
	}
	return func() { _ = set(flags, cgo) }, nil // what could be set once can be set back
}

// A gating is a run of the gate. Two of its stages may run at once.
type gating struct {
	root    string
	reports string // directory of the race detector's

	mu      sync.Mutex // guards the following
	results []result
	faults  []error
}

// gate is `make test`. It goes on after a fault, so that one run shows all of
// them.
//
// A test is run once: under the race detector where its package has goroutines, but for
// what is not the same there (see plain).
//
// What it needs is processors, and most tests wait more than they compute, those of
// blackbox above all. So what only computes is done beside others, at a low priority, by
// which it takes what they leave: the linters, and the race detector in packages that no clock
// runs for. To keep the latter for blackbox made that longer by more than it saved.
// What the machine lacks is fetched while the tree is compiled.
func gate(ctx context.Context, root string) error {
	start := time.Now()
	var ready sync.WaitGroup
	var unready error
	ready.Go(func() { unready = setup(ctx, root) })
	defer ready.Wait()
	restore, err := compileOnce()
	if err != nil {
		return err
	}
	defer restore()
	packages, err := lines(ctx, root, "go", "list", "./...")
	if err != nil {
		return err
	}
	goroutines, err := concurrent(root, packages)
	if err != nil {
		return err
	}
	reports, err := os.MkdirTemp("", "bellwire-races-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(reports)
	g := &gating{root: root, reports: reports}
	stage("build", func() {
		g.fault(build(ctx, root))
		g.rules(ctx)
		ready.Wait()
		g.fault(unready)
	})
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() {
		g.linters(ctx)
		g.underRace(ctx, true, only(goroutines, timeless))
	})
	stage("rooms", func() { g.rooms(ctx, without(packages, goroutines), goroutines) })
	stage("race", func() { g.underRace(ctx, false, without(goroutines, append(slices.Clone(timeless), blackbox))) })
	if slices.Contains(packages, blackbox) {
		stage("blackbox", func() {
			n, err := atOnce(os.Stdout, os.TempDir())
			g.fault(err)
			g.test(ctx, false, "", asBuilt(root), "-parallel="+strconv.Itoa(n), "-count=1", "-vet=off", "-timeout=10m", "-skip", external, blackbox)
		})
	}
	stage("what is left", beside.Wait)
	g.fault(races(os.Stdout, reports))

	fmt.Println()
	printTable(os.Stdout, g.results)
	for _, err := range judge(os.Stdout, g.results, allowances(root)) {
		g.fault(err)
	}
	return verdict(os.Stdout, g.results, g.faults, time.Since(start))
}

// stage does one after the other what takes the gate's time, and says how much of it,
// and how many processors were busy: what is not cannot be made shorter by computing less.
func stage(name string, do func()) {
	start, before := time.Now(), busy()
	do()
	took := time.Since(start)
	fmt.Printf("== %s: %.0fs, %.1f of %d processors busy\n", name, took.Seconds(), (busy()-before).Seconds()/took.Seconds(), runtime.NumCPU())
}

// busy is for how long processors have been busy since the machine was started; 0
// where it does not tell.
func busy() time.Duration {
	const tick = 10 * time.Millisecond // USER_HZ is 100 everywhere that Linux runs
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	all, _, _ := strings.Cut(string(text), "\n")
	var sum time.Duration
	for i, field := range strings.Fields(all) {
		// cpu user nice system idle iowait irq softirq steal guest…, see proc_stat(5).
		if n, err := strconv.ParseInt(field, 10, 64); err == nil && i != 4 && i != 5 && i < 8 {
			sum += time.Duration(n) * tick
		}
	}
	return sum
}

func (g *gating) fault(err error) {
	if err != nil {
		fmt.Printf("FAIL\t%v\n", err)
		g.mu.Lock()
		defer g.mu.Unlock()
		g.faults = append(g.faults, err)
	}
}

func (g *gating) test(ctx context.Context, aside bool, mode string, env []string, args ...string) {
	r, err := goTest(ctx, os.Stdout, g.root, aside, mode, env, args...)
	g.fault(err)
	for i := range r {
		r[i].aside = aside
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.results = append(g.results, r...)
}

// theRules is the package of the rules of the tree: first, for they take no time and
// explain much.
const theRules = module + "/cmd/internal/tidy"

func (g *gating) rules(ctx context.Context) {
	// Without the vet of go test, here and elsewhere: linters does all of it.
	g.test(ctx, false, "", nil, "-count=1", "-vet=off", theRules)
}

// rooms tests, without the race detector, the packages that are not tested under it, and
// of the others what is worth it.
func (g *gating) rooms(ctx context.Context, alone, goroutines []string) {
	g.test(ctx, false, "", asBuilt(g.root), append([]string{packagesAtOnce, "-count=1", "-vet=off", "-timeout=5m"}, without(alone, []string{theRules})...)...)
	with, tests, err := plain(g.root, without(goroutines, []string{blackbox, measures}), regexp.MustCompile(withoutRace))
	if err != nil {
		g.fault(err)
		return
	}
	g.test(ctx, false, "", asBuilt(g.root), append([]string{packagesAtOnce, "-count=1", "-vet=off", "-timeout=5m", "-run", "^(" + strings.Join(tests, "|") + ")$"}, with...)...)
	if slices.Contains(goroutines, measures) {
		g.test(ctx, false, "", asBuilt(g.root), "-count=1", "-vet=off", "-timeout=5m", "-run", loadsTheBinary, measures)
	}
}

func (g *gating) linters(ctx context.Context) {
	for _, tool := range [][]string{
		{"gofumpt", "run", gofumpt, "-l", "."},
		{"vet", "vet", "./..."},
		{"staticcheck", "run", staticcheck, "./..."},
		{"deadcode", "run", deadcode, "-test", "./..."},
	} {
		g.fault(mustBeSilent(ctx, g.root, tool[0], tool[1:]...))
	}
}

func (g *gating) underRace(ctx context.Context, aside bool, packages []string) {
	env := append(asBuilt(g.root), raceLog(g.reports), "CGO_ENABLED=1")
	g.test(ctx, aside, "race", env, append([]string{packagesInRace, "-count=1", "-vet=off", "-timeout=10m", "-race", "-skip", withoutRace}, packages...)...)
}

// without returns packages but those.
func without(packages, those []string) []string {
	return slices.DeleteFunc(slices.Clone(packages), func(pkg string) bool { return slices.Contains(those, pkg) })
}

// only returns those of packages that are wanted.
func only(packages, wanted []string) []string {
	return slices.DeleteFunc(slices.Clone(packages), func(pkg string) bool { return !slices.Contains(wanted, pkg) })
}

// goCommand is the go command, aside or not: at a low priority, so that it takes what
// others leave, and a tenth of what they do not: a test that gets nothing for long takes
// that for a fault.
func goCommand(ctx context.Context, aside bool, args ...string) *exec.Cmd {
	if !aside {
		return exec.CommandContext(ctx, "go", args...)
	}
	return exec.CommandContext(ctx, "nice", append([]string{"-n", "10", "go"}, args...)...)
}

// An allowance lets tests be skipped that cannot be run here, whatever is installed.
type allowance struct {
	tests []string // beginnings of their names
	why   string   // empty: they may not
}

// allowances are all there are. What one lets pass is said in the last lines.
func allowances(root string) []allowance {
	return []allowance{
		{[]string{"TestPowerCut"}, powerCutAllowed()},
		{[]string{"TestClusterRollingUpgrade", "TestClusterMixedSnapshots", "TestOldDataIsRead", "TestHeldLevelLetsGoBack", "TestFormats", "TestGoldenFormsAreListed", "TestUnpack"}, noHistory(root)},
	}
}

// allowed returns why a test may be skipped; empty if it may not.
func allowed(all []allowance, test string) string {
	for _, a := range all {
		if slices.ContainsFunc(a.tests, func(name string) bool { return strings.HasPrefix(test, name) }) {
			return a.why
		}
	}
	return ""
}

// noHistory says why the tests that need the sources of an earlier version may be
// skipped here: a tree without its history does not have them. Empty: they may not.
func noHistory(root string) string {
	all, err := formats.Read(root)
	if err != nil {
		return "" // that is a fault, which they will tell
	}
	if why := formats.Missing(root, formats.Last(all).Commit); why != "" {
		return "this tree lacks " + why
	}
	return ""
}

// raceLog has whatever is built with the race detector write its reports to files
// in dir.
func raceLog(dir string) string { return "GORACE=log_path=" + filepath.Join(dir, "race") }

// races prints the reports in dir, and is an error if there is one. A test fails of
// its own data race; of one in a process that it has started, a node, say, that it
// kills in the end, it hears nothing.
func races(out io.Writer, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "race.*"))
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s\n", text)
	}
	if len(files) > 0 {
		return fmt.Errorf("%d processes reported data races", len(files))
	}
	return nil
}

// judge returns a fault for each package that failed, passed its budget or
// skipped a test that it may not skip. What is let pass is noted on out.
func judge(out io.Writer, results []result, let []allowance) []error {
	var faults []error
	for _, r := range results {
		name := short(r.pkg) + inMode(r.mode)
		if !r.ok {
			faults = append(faults, fmt.Errorf("%s: %d tests failed", name, r.failed))
		}
		limit, ok := budget[r.pkg]
		if !ok {
			limit = budget[""]
		}
		if r.mode == "race" {
			limit *= 3
		}
		if r.took > limit && !r.aside {
			faults = append(faults, fmt.Errorf("%s: took %.0fs, its budget is %.0fs", name, r.took.Seconds(), limit.Seconds()))
		}
		for _, s := range r.skipped {
			if why := allowed(let, s.test); why != "" {
				fmt.Fprintf(out, "note\t%s: %s skipped, allowed because %s (%s)\n", name, s.test, why, s.why)
				continue
			}
			faults = append(faults, fmt.Errorf("%s: %s was skipped: %s", name, s.test, s.why))
		}
	}
	return faults
}

// powerCutAllowed says why the test that cuts the power of a loop-mounted disk
// may be skipped here: only root can mount one. Empty: it may not.
func powerCutAllowed() string {
	if os.Geteuid() != 0 {
		return "it needs root"
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "" // an unknown machine gets no allowance
	}
	const sysAdmin = 1 << 21 // CAP_SYS_ADMIN, without which root may not mount
	for line := range strings.Lines(string(status)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			if err == nil && caps&sysAdmin == 0 {
				return "root may not mount here (no CAP_SYS_ADMIN)"
			}
		}
	}
	return ""
}

// verdict prints the last lines, in the form of go test.
func verdict(out io.Writer, results []result, faults []error, took time.Duration) error {
	var tests, skipped int
	for _, r := range results {
		tests += r.tests
		skipped += len(r.skipped)
	}
	if tests == 0 {
		faults = append(faults, errors.New("no test ran"))
	}
	if len(faults) > 0 {
		fmt.Fprintln(out)
		for _, err := range faults {
			fmt.Fprintf(out, "FAIL\t%v\n", err)
		}
		fmt.Fprintf(out, "FAIL\t%s\t%.3fs\n", module, took.Seconds())
		return fmt.Errorf("%d faults", len(faults))
	}
	fmt.Fprintf(out, "%d tests passed, %d skipped\nPASS\nok  \t%s\t%.3fs\n", tests, skipped, module, took.Seconds())
	return nil
}

// mustBeSilent runs a tool of Go's, aside, that prints what it finds, and fails if it
// prints anything. What `go run` says about downloading the tool does not count.
func mustBeSilent(ctx context.Context, root, what string, args ...string) error {
	fmt.Printf("== %s\n", what)
	c := goCommand(ctx, true, args...)
	c.Dir = root
	text, err := c.CombinedOutput()
	var findings []string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "go: downloading ") {
			findings = append(findings, line)
		}
	}
	fmt.Print(strings.Join(findings, ""))
	if len(findings) > 0 {
		return fmt.Errorf("%s: %d lines of findings", what, len(findings))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// build makes bin/bellwire as it is shipped; black-box tests start it.
func build(ctx context.Context, root string) error {
	return command(ctx, root, []string{"CGO_ENABLED=0"},
		"go", "build", "-trimpath", "-ldflags=-s -w", "-o", "bin/bellwire", "./cmd/bellwire")
}
