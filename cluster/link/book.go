package link

import (
	"cmp"
	"slices"
	"sync"
)

// A Member is a node, and where it is.
type Member struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Address string `json:"address"`

	// Since is when the node took this address, unix nanoseconds by its own
	// clock: of two addresses of one node the later one counts.
	Since int64 `json:"since"`

	// Reader says that the node wants no vote.
	Reader bool `json:"reader,omitempty"`
}

// maxMembers is how many nodes a book holds. Clusters have a handful.
const maxMembers = 256

// A Book holds where nodes are. It may be used by any goroutine.
type Book struct {
	changed func([]Member) // told after each change, one call at a time

	mu      sync.Mutex
	members map[string]Member
	telling sync.Mutex
}

// NewBook returns a book of members. changed, if not nil, is given all of it after
// each change, so that it can be kept.
func NewBook(members []Member, changed func([]Member)) *Book {
	b := &Book{members: map[string]Member{}}
	b.Learn(members...)
	b.changed = changed
	return b
}

// Learn takes note of what is newer than what is known.
func (b *Book) Learn(members ...Member) {
	b.mu.Lock()
	news := false
	for _, m := range members {
		old, known := b.members[m.ID]
		if m.ID == "" || m.Address == "" || known && old.Since >= m.Since || !known && len(b.members) >= maxMembers {
			continue
		}
		b.members[m.ID], news = m, true
	}
	b.mu.Unlock()
	if news {
		b.tell()
	}
}

// Keep forgets all nodes but those for which keep says yes.
func (b *Book) Keep(keep func(id string) bool) {
	b.mu.Lock()
	news := false
	for id := range b.members {
		if !keep(id) {
			delete(b.members, id)
			news = true
		}
	}
	b.mu.Unlock()
	if news {
		b.tell()
	}
}

// tell passes the present state on. It holds telling, so that the last that is
// told is the newest.
func (b *Book) tell() {
	if b.changed == nil {
		return
	}
	b.telling.Lock()
	defer b.telling.Unlock()
	b.changed(b.Members())
}

// Find returns the node with that id.
func (b *Book) Find(id string) (Member, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m, known := b.members[id]
	return m, known
}

// Members returns all nodes, ordered by name and id.
func (b *Book) Members() []Member {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]Member, 0, len(b.members))
	for _, m := range b.members {
		all = append(all, m)
	}
	slices.SortFunc(all, func(x, y Member) int { return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.ID, y.ID)) })
	return all
}
