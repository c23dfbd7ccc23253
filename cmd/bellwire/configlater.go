package main

import (
	"maps"
	"slices"

	"github.com/bellwire/bellwire/yamltree"
)

// warnOfLater names the keys of the configuration file that say something else than they did at the
// start and that SIGHUP does not put in force: an operator who changed one is not to believe that it is. A file
// with faults is none of its business: they are told where bridges are read.
func (s *server) warnOfLater(f serveFlags) {
	before := f.said
	if f.config == "" || f.readConfig(func(string) bool { return true }) != nil {
		return
	}
	if keys := laterKeys(before, f.said); len(keys) > 0 {
		s.config.logger.Warn("keys of the configuration file that count at a start only have changed", "file", f.config, "keys", keys, "todo", "start the node anew to put them in force")
	}
}

// laterKeys returns the keys, in order, whose values differ and which no SIGHUP puts in force. Rows of
// limits are read again, the path of a limits file is not.
func laterKeys(before, now *yamltree.Node) (keys []string) {
	was, is := byKey(before), byKey(now)
	all := maps.Clone(was)
	maps.Copy(all, is)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		a, b := was[key], is[key]
		rows := key == "limits" && (a == nil || a.Kind == yamltree.Table) && (b == nil || b.Kind == yamltree.Table)
		if key != "bridges" && !rows && !sameValue(a, b) {
			keys = append(keys, key)
		}
	}
	return keys
}

// byKey is a table's values by their keys; empty for what is no table.
func byKey(n *yamltree.Node) map[string]*yamltree.Node {
	values := map[string]*yamltree.Node{}
	if n != nil {
		for _, k := range n.Keys {
			values[k.Name] = k.Value
		}
	}
	return values
}

// sameValue says whether two values of a file are the same, wherever they stand and in whatever order keys
// do. A value that is not there is like one that says nothing.
func sameValue(a, b *yamltree.Node) bool {
	if a == nil {
		a = &yamltree.Node{}
	}
	if b == nil {
		b = &yamltree.Node{}
	}
	return a.Kind == b.Kind && a.Text == b.Text && slices.EqualFunc(a.List, b.List, sameValue) && maps.EqualFunc(byKey(a), byKey(b), sameValue)
}
