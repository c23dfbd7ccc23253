package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// concurrent returns those of packages whose files, those of their tests too, start
// goroutines, or hold what is shared between such: there the race detector has
// something to find. What a package without either has others do is watched in their
// own tests, and by soak, which leaves out none.
func concurrent(root string, packages []string) (found []string, err error) {
	for _, pkg := range packages {
		files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(short(pkg)), "*.go"))
		if err != nil {
			return nil, err
		}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				return nil, err
			}
			yes, err := hasGoroutines(name, text)
			if err != nil {
				return nil, err
			}
			if yes {
				found = append(found, pkg)
				break
			}
		}
	}
	return found, nil
}

// hasGoroutines says whether a file starts a goroutine, imports what goroutines share
// things by, or runs in bubbles.
func hasGoroutines(name string, text []byte) (bool, error) {
	file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
	if err != nil {
		return false, err
	}
	for _, i := range file.Imports {
		path := strings.Trim(i.Path.Value, `"`)
		if slices.Contains([]string{"sync", "sync/atomic", "golang.org/x/sync/errgroup", module + "/internal/bubble"}, path) {
			return true, nil
		}
	}
	found := false
	ast.Inspect(file, func(n ast.Node) bool {
		if _, ok := n.(*ast.GoStmt); ok {
			found = true
		}
		return !found
	})
	return found, nil
}
