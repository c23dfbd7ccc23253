// Package tidy holds the rules of the tree that a compiler does not check: who
// may import whom, which large dependency has which door, who may read the
// wall clock, and that each promise of README names a test that exists.
//
// It reads the files in this process and starts no other program: a version
// that ran `go list` answered "ok (cached)" while the tree broke the diagram,
// because the test cache did not know which files it had read.
package tidy

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const module = "github.com/bellwire/bellwire"

// mayImport is the diagram of DESIGN.md: a line per room, and for each the
// rooms of this module that its shipped files may import. A room without a
// line fails, so that adding one means editing the diagram. Tests may import
// what they like.
var mayImport = map[string][]string{
	"bw":                {},
	"disk":              {},
	"broker/event":      {"broker/secret"},
	"broker/secret":     {},
	"broker/topic":      {},
	"broker/store":      {"disk"},
	"broker":            {"broker/event", "broker/secret", "broker/store", "broker/topic"},
	"broker/mqtt":       {"broker", "broker/event", "broker/proxyproto", "broker/topic", "broker/websocket", "bw", "internal/wire"},
	"broker/proxyproto": {},
	"broker/websocket":  {},
	"broker/brokertest": {"broker", "broker/event", "broker/store", "broker/topic", "disk", "internal/effort"},
	"bridge":            {"broker/topic", "internal/wire"},
	"yamltree":          {"internal/nearest"},
	"acl":               {"broker/topic", "yamltree"},
	"authn":             {"acl"},
	"cluster/raftlog":   {"disk"},
	"cluster/certs":     {},
	"cluster/link":      {"internal/logline"},
	"cluster":           {"cluster/certs", "cluster/link", "cluster/raftlog", "disk", "internal/logline"},
	"cluster/clustertest": {
		"cluster", "disk",
	},
	"api":               {"bw", "internal/nearest", "internal/pace"},
	"profiles/jsontree": {},
	"profiles/xmltree":  {},
	"profiles/kind":     {"acl", "internal/nearest", "profiles/jsontree", "profiles/xmltree"},
	"profiles/kind/kindtest": {
		"profiles/jsontree", "profiles/kind", "profiles/policy",
	},
	"profiles/example":   {"profiles/jsontree", "profiles/kind"},
	"profiles/im":        {"profiles/jsontree", "profiles/kind"},
	"profiles/location":  {"profiles/jsontree", "profiles/kind"},
	"profiles/presence":  {"profiles/jsontree", "profiles/kind", "profiles/xmltree"},
	"profiles/watchers":  {"profiles/jsontree", "profiles/kind", "profiles/xmltree"},
	"profiles/policy":    {"acl", "internal/nearest", "profiles/jsontree", "profiles/kind", "profiles/watchers", "profiles/xmltree", "yamltree"},
	"profiles/fields":    {"profiles/kind"},
	"profiles/refuse":    {"broker", "broker/event", "profiles/jsontree", "profiles/kind"},
	"profiles/life":      {"broker/event", "internal/pace", "profiles/fields", "profiles/kind", "profiles/policy", "profiles/watchers"},
	"profiles/state":     {"broker", "broker/event", "broker/secret", "internal/pace", "profiles/alias", "profiles/fields", "profiles/kind", "profiles/life", "profiles/policy", "profiles/refuse", "profiles/watchers"},
	"profiles/alias":     {"broker", "profiles/fields", "profiles/jsontree", "profiles/kind", "profiles/refuse", "profiles/watchers"},
	"profiles/blocklist": {"broker", "broker/event", "profiles/kind", "profiles/policy", "profiles/refuse"},
	"profiles/inbox":     {"broker", "broker/event", "broker/secret", "internal/pace", "profiles/alias", "profiles/fields", "profiles/kind", "profiles/policy", "profiles/refuse", "profiles/watchers"},
	"bench":              {},
	"bench/cmd":          {"bench"},
	"mqtttest":           {},
	"internal/bubble":    {},
	"internal/effort":    {},
	"internal/fixedseed": {"internal/effort"},
	"internal/formats":   {},
	"internal/golden":    {},
	"internal/freeport":  {},
	"internal/letter":    {},
	"internal/logline":   {},
	"internal/nearest":   {},
	"internal/pace":      {},
	"internal/wire":      {},
	"blackbox":           {},
	"cmd/internal/tidy":  {},
	"cmd/internal/check": {
		"cmd/internal/tidy", "internal/effort", "internal/formats",
	},
	"cmd/bellwire": {
		"acl", "api", "authn", "bench", "bridge", "broker", "broker/event", "broker/mqtt", "broker/store",
		"broker/topic", "broker/websocket", "bw", "cluster", "cluster/certs", "cluster/link", "cluster/raftlog", "disk", "internal/logline", "internal/nearest", "profiles/alias", "profiles/blocklist", "profiles/jsontree", "profiles/im", "profiles/inbox", "profiles/kind", "profiles/life", "profiles/location",
		"profiles/policy", "profiles/presence", "profiles/state", "yamltree",
	},
}

// onlyIn keeps each large dependency behind its doors in shipped files. The
// longest path that matches an import decides; none means that nobody may.
var onlyIn = map[string][]string{
	"github.com/cockroachdb/pebble/v2":        {"broker/store", "cluster/raftlog"},
	"github.com/cockroachdb/pebble/v2/vfs":    {"disk"},
	"github.com/hashicorp/raft":               {"cluster", "cluster/raftlog"},
	"github.com/mochi-mqtt/server/v2":         {},
	"github.com/mochi-mqtt/server/v2/packets": {"broker/mqtt"},
	"github.com/eclipse/paho.golang":          {"cmd/bellwire"},
	"github.com/prometheus/client_golang":     {"cmd/bellwire"},
	"github.com/goccy/go-yaml":                {"yamltree"},
	"github.com/golang/geo":                   {"profiles/location"},
	"golang.org/x/crypto":                     {"acl"},
	"github.com/xdg-go/scram":                 {"authn"},
	"github.com/go-jose/go-jose/v4":           {"authn"},
	"github.com/spf13/cobra":                  {"cmd/bellwire"},
	"github.com/coder/websocket":              {"bridge"},
}

// testsOnlyIn keeps what serves tests alone out of every shipped file, and in
// the tests of these rooms: what judges histories of the built binary has its
// models there, and is to judge all of them.
var testsOnlyIn = map[string]string{
	"github.com/anishathalye/porcupine": "blackbox",
}

// wallClock lists the rooms whose shipped files may read the wall clock. All
// others are handed a clock, so that a test decides what time it is. The two
// client-side rooms measure real elapsed time.
var wallClock = []string{"cmd/bellwire", "cmd/internal/check", "bench", "bench/cmd", "mqtttest"}

// A file is one parsed Go file of the tree.
type file struct {
	room string // its directory below the module's root, with slashes
	name string // its path below the module's root
	test bool
	ast  *ast.File
	fset *token.FileSet
}

// readTree parses every Go file below root that belongs to this module:
// nested modules, testdata and hidden directories are left out.
func readTree(root string) ([]file, error) {
	var files []file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p == root {
				return nil
			}
			if name == "testdata" || name == "node_modules" || strings.HasPrefix(name, ".") || isModule(p) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, p, nil, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		files = append(files, file{
			room: path.Dir(rel), name: rel, test: strings.HasSuffix(name, "_test.go"), ast: f, fset: fset,
		})
		return nil
	})
	return files, err
}

func isModule(dir string) bool {
	m, _ := filepath.Glob(filepath.Join(dir, "go.mod"))
	return len(m) > 0
}

// checkImports returns a line for each import that breaks mayImport or onlyIn.
func checkImports(files []file) []string {
	var faults []string
	for _, f := range files {
		if _, known := mayImport[f.room]; !known {
			faults = append(faults, fmt.Sprintf("%s: room %q is not in the diagram: add its line to mayImport", f.name, f.room))
			continue
		}
		for _, spec := range f.ast.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				continue
			}
			if room, ours := strings.CutPrefix(imp, module+"/"); ours {
				if !f.test && !slices.Contains(mayImport[f.room], room) {
					faults = append(faults, fmt.Sprintf("%s: %s may not import %s", f.name, f.room, room))
				}
				continue
			}
			if room, held := testsOnlyIn[imp]; held && !(f.test && f.room == room) {
				faults = append(faults, fmt.Sprintf("%s: %s is for the tests of %s", f.name, imp, room))
			}
			if doors, rule, held := doorsOf(imp); held && !f.test && !slices.Contains(doors, f.room) {
				faults = append(faults, fmt.Sprintf("%s: %s is behind the door of %v (rule %s)", f.name, imp, doors, rule))
			}
		}
	}
	return faults
}

func doorsOf(imp string) (doors []string, rule string, held bool) {
	for p, d := range onlyIn {
		if (imp == p || strings.HasPrefix(imp, p+"/")) && len(p) > len(rule) {
			doors, rule, held = d, p, true
		}
	}
	return doors, rule, held
}

// checkClock returns a line for each reading of the wall clock outside the
// rooms that may.
func checkClock(files []file) []string {
	var faults []string
	for _, f := range files {
		if f.test || slices.Contains(wallClock, f.room) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "time" && sel.Sel.Name == "Now" {
				faults = append(faults, fmt.Sprintf("%s: time.Now is read by cmd/bellwire only; take a clock", f.fset.Position(n.Pos())))
			}
			return true
		})
	}
	return faults
}

// checkComments returns a line for each room without a package comment.
func checkComments(files []file) []string {
	has := map[string]bool{}
	for _, f := range files {
		if f.test {
			continue
		}
		has[f.room] = has[f.room] || (f.ast.Doc != nil && len(f.ast.Doc.Text()) > 40)
	}
	var faults []string
	for room, ok := range has {
		if !ok {
			faults = append(faults, room+": no package comment that says what the room is for")
		}
	}
	slices.Sort(faults)
	return faults
}

// checkSleeps returns a line for each test that sleeps instead of waiting for
// a condition.
func checkSleeps(files []file) []string {
	var faults []string
	for _, f := range files {
		if !f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "time" && sel.Sel.Name == "Sleep" {
				faults = append(faults, fmt.Sprintf("%s: tests do not sleep: wait for a condition, or use synctest", f.fset.Position(n.Pos())))
			}
			return true
		})
	}
	return faults
}

// checkBubbles returns a line for each test that makes a bubble in which the
// race detector may die (see internal/bubble).
func checkBubbles(files []file) []string {
	var faults []string
	for _, f := range files {
		if f.room == "internal/bubble" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "synctest" && sel.Sel.Name == "Test" {
				faults = append(faults, fmt.Sprintf("%s: bubbles are made by internal/bubble: call bubble.Test, which says why", f.fset.Position(n.Pos())))
			}
			return true
		})
	}
	return faults
}

// testNames returns the names of all test and benchmark functions.
func testNames(files []file) map[string]bool {
	names := map[string]bool{}
	for _, f := range files {
		if !f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				names[fn.Name.Name] = true
			}
		}
	}
	return names
}
