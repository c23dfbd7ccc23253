package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/bellwire/bellwire/internal/effort"
)

// measured are functions whose answer is another one under the race detector, or which
// have a test do less there (see effort).
var measured = []string{"AllocsPerRun", "ReadMemStats", "RoundsOfOne"}

// plain returns the tests that are worth a run without the race detector in packages
// that are tested under it, and those of packages that have some: those that are left out
// there, those that measure, by themselves or by a function of their package's tests, and
// those that try fewer seeds there. What the others find without it they find with it.
func plain(root string, packages []string, leftOut *regexp.Regexp) (with, tests []string, err error) {
	for _, pkg := range packages {
		files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(short(pkg)), "*_test.go"))
		if err != nil {
			return nil, nil, err
		}
		calls := map[string][]string{} // by function, of methods too
		for _, name := range files {
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			if err != nil {
				return nil, nil, err
			}
			callsOf(file, calls)
		}
		reached := reaching(calls, measured)
		found := slices.DeleteFunc(slices.Sorted(maps.Keys(calls)), func(name string) bool {
			return !strings.HasPrefix(name, "Test") || !reached[name] && !leftOut.MatchString(name) && !fewerInRace(pkg, name)
		})
		if len(found) > 0 {
			with, tests = append(with, pkg), append(tests, found...)
		}
	}
	slices.Sort(tests)
	return with, slices.Compact(tests), nil
}

func fewerInRace(pkg, test string) bool {
	return slices.ContainsFunc(effort.Tests, func(one effort.Test) bool {
		name, _, _ := strings.Cut(one.Name, "/")
		return one.Race > 0 && name == test && module+"/"+one.Package == pkg
	})
}

// callsOf adds to calls what each function of file names.
func callsOf(file *ast.File, calls map[string][]string) {
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && id.Name != f.Name.Name {
				calls[f.Name.Name] = append(calls[f.Name.Name], id.Name)
			}
			return true
		})
	}
}

// reaching returns the functions that come to one of ends by calls.
func reaching(calls map[string][]string, ends []string) map[string]bool {
	reached := map[string]bool{}
	for _, end := range ends {
		reached[end] = true
	}
	for grown := true; grown; {
		grown = false
		for name, named := range calls {
			if !reached[name] && slices.ContainsFunc(named, func(n string) bool { return reached[n] }) {
				reached[name], grown = true, true
			}
		}
	}
	return reached
}
