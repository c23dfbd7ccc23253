// Package nearest finds the name that a misspelt word was meant to be.
package nearest

import "strings"

// Name returns the name that word was most probably meant to be: the one
// with the fewest edits, at most a third of the word, or one that it begins.
// Empty if none is near.
func Name(word string, names []string) string {
	if len(word) > 64 {
		return "" // no name is that long, and edits would take its time
	}
	word = strings.ToLower(word)
	best, bestEdits := "", max(1, len(word)/3)+1
	for _, name := range names {
		lower := strings.ToLower(name)
		if len(word) >= 4 && strings.HasPrefix(lower, word) && bestEdits > 1 {
			best, bestEdits = name, 1
			continue
		}
		if diff := len(lower) - len(word); diff >= bestEdits || -diff >= bestEdits {
			continue
		}
		if n := edits(word, lower); n < bestEdits {
			best, bestEdits = name, n
		}
	}
	return best
}

// edits counts the insertions, deletions, substitutions and swaps of
// neighbours that turn a into b.
func edits(a, b string) int {
	row := func() []int { return make([]int, len(b)+1) }
	before, last, this := row(), row(), row()
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		this[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			this[j] = min(last[j]+1, this[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				this[j] = min(this[j], before[j-2]+1)
			}
		}
		before, last, this = last, this, before
	}
	return last[len(b)]
}
