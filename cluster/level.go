package cluster

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bellwire/bellwire/cluster/link"
)

// A Level is a feature level: what the log and the state may hold, and how entries
// are applied. What each brings is the Machine's to know; here it is a number that
// rises when all members know the next, and never falls.
//
// Whoever does not know the level in force is kept out at each door: it does not
// open the directory (Identity.Format), is not talked with (link.Levels), does not
// join (takeIn). Members that announce nothing are programs of the first level.
//
// What must hold: the level is raised only to one that every member, voter or not,
// has said it knows, in answer to a question asked just before; and no node is
// taken in between question and raise. A member that was exchanged for an older
// program in that moment is stopped by the first entry that it does not know.
type Level uint8

const firstLevel Level = 1

// Levels are what a node says of its feature levels.
type Levels struct {
	InForce Level `json:"in_force"`
	Knows   Level `json:"knows"`          // its program
	Hold    Level `json:"hold,omitempty"` // its operator wants no higher one; 0 for none
}

// Agrees returns the highest level that the node agrees to.
func (l Levels) Agrees() Level {
	if l.Hold != 0 {
		return max(firstLevel, min(l.Knows, l.Hold))
	}
	return max(firstLevel, l.Knows)
}

// Level returns the level in force, as far as this node has heard. For any
// goroutine.
func (d *Dir) Level() Level { return Level(d.level.Load()) }

// Raise notes, durably, that a level is in force: from now on programs that do not
// know it refuse the directory. It is to be called before anything of the level is
// written, by one goroutine at a time. A lower one than before changes nothing.
func (d *Dir) Raise(to Level) error {
	before := d.Level()
	if to <= before {
		return nil
	}
	if to > d.newest {
		return fmt.Errorf("%w: feature level %d, and this program knows %d", ErrNewer, to, d.newest)
	}
	d.level.Store(uint32(to))
	if err := d.save(); err != nil {
		return fmt.Errorf("data directory %s: note feature level %d: %w", d.path, to, err)
	}
	return nil
}

func (d *Dir) linkLevels() link.Levels {
	return link.Levels{Knows: uint8(d.newest), InForce: uint8(d.Level())}
}

func (n *Node) levels() Levels {
	return Levels{InForce: n.cfg.Dir.Level(), Knows: n.cfg.Dir.newest, Hold: n.cfg.Hold}
}

// NextLevel returns the newest level that any of members knows, and says who keeps
// the level in force from rising to it, and why, in words: nobody if all agree.
func NextLevel(members []Member) (newest Level, holding []string) {
	newest, _, holding = agreed(members)
	return newest, holding
}

// agreed is NextLevel, and returns the level that all agree to.
func agreed(members []Member) (newest, to Level, holding []string) {
	newest = firstLevel
	for _, m := range members {
		if m.Reachable {
			newest = max(newest, m.State.Levels.Knows)
		}
	}
	to = newest
	for _, m := range members {
		l := m.State.Levels
		switch {
		case !m.Reachable:
			to = firstLevel // nothing is known of it
			holding = append(holding, m.Name+" does not answer")
		case l.Agrees() == newest:
		case l.Hold != 0 && l.Hold < l.Knows:
			holding = append(holding, fmt.Sprintf("%s holds it at %d", m.Name, l.Hold))
		default:
			holding = append(holding, fmt.Sprintf("%s knows %d", m.Name, l.Agrees()))
		}
		if m.Reachable {
			to = min(to, l.Agrees())
		}
	}
	return newest, to, holding
}

const (
	levelEvery    = time.Second // how often the leader asks, while it could be raised
	levelPatience = time.Second // how long it waits for answers
)

// A leveler has the leader raise the level when all members agree to a higher one.
type leveler struct {
	n      *Node
	next   time.Time
	asking atomic.Bool
	told   string // who kept it from rising when we last told of it; of who asks
}

// look begins to ask, if it is time to.
func (v *leveler) look(now time.Time) {
	n := v.n
	if n.cfg.Raise == nil || n.levels().Agrees() <= n.cfg.Dir.Level() || now.Before(v.next) || !v.asking.CompareAndSwap(false, true) {
		return
	}
	v.next = now.Add(levelEvery)
	n.tasks.Go(func() {
		defer v.asking.Store(false)
		v.ask()
	})
}

// ask asks all members, and has the log raise the level if all agree.
func (v *leveler) ask() {
	n := v.n
	members := n.Members(levelPatience)
	_, to, holding := agreed(members)
	in := n.cfg.Dir.Level()
	if why := strings.Join(holding, ", "); why != v.told {
		if v.told = why; why != "" {
			n.cfg.Logger.Info("cluster: the feature level does not rise to the newest yet", "in_force", in, "members", why)
		}
	}
	if to <= in || !n.beginChange() {
		return
	}
	defer n.endChange() // nobody is taken in until it is done
	if !n.proposer.isOpen() || !n.consistOf(members) {
		return
	}
	if err := n.cfg.Raise(to); err != nil {
		n.cfg.Logger.Warn("cluster: the feature level is not raised yet", "to", to, "err", err.Error())
	}
}

// consistOf says whether the cluster has these members and no others.
func (n *Node) consistOf(members []Member) bool {
	servers := n.servers()
	return len(servers) == len(members) && !slices.ContainsFunc(members, func(m Member) bool { return !n.Member(m.ID) })
}
