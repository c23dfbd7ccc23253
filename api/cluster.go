package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/bellwire/bellwire/bw"
)

// A Cluster is what operators see of a cluster and do to it, through any of its
// nodes. Nodes are named by their names or ids. Its methods may be called from
// many goroutines at once; they return when what was asked is done, or not, or
// ctx ends.
type Cluster interface {
	// Status returns the cluster as this node sees it. It always answers, also
	// without a leader.
	Status(ctx context.Context) Status

	// Verify compares the states of all nodes at one index.
	Verify(ctx context.Context) (Verification, error)

	// Remove takes a node out for good, for who: a principal, or "local". Unless
	// forced it refuses to where the rest would have no quorum: a *QuorumError.
	Remove(ctx context.Context, node string, force bool, who string) error

	// Promote gives a node a vote.
	Promote(ctx context.Context, node string) error

	// Transfer has a node lead; an empty name: any other than the one that does.
	Transfer(ctx context.Context, node string) error

	// Drain has a node give up its leadership and its clients, and take no new
	// ones, until Resume. Unless forced it refuses to where too few others are
	// left. Of progress it tells as it goes.
	Drain(ctx context.Context, node string, force bool) error
	Resume(ctx context.Context, node string) error
}

// A QuorumError is why a change is refused that would leave too few voters.
type QuorumError struct {
	Node, What string   // what cannot be done with which node: "drained"
	Up, Voters int      // as it is now
	Down       []string // names of voters that do not answer
}

func (e *QuorumError) Error() string {
	return fmt.Sprintf("node %s cannot be %s: the cluster would lose quorum (%d of %d voters up)", e.Node, e.What, e.Up, e.Voters)
}

// Todo says what would help.
func (e *QuorumError) Todo() string {
	if len(e.Down) == 0 {
		return "add a node first, or accept the risk with --force, over HTTP force: true"
	}
	return "bring " + strings.Join(e.Down, " and ") + " back, or accept the risk with --force, over HTTP force: true"
}

// Errors that the methods of a Cluster wrap. Their texts are shown to operators.
var (
	ErrNoNode   = errors.New("no such node")
	ErrNoLeader = errors.New("no leader")
	ErrConflict = errors.New("not possible as things are")

	// ErrMayBeDone means that nobody knows whether it was done, or will be.
	ErrMayBeDone = errors.New("nothing is heard of it")
)

// A Status is a cluster as one of its nodes sees it.
type Status struct {
	Cluster string   `json:"cluster"`        // id
	Name    string   `json:"name,omitempty"` // for people; empty if it has none
	Leader  string   `json:"leader"`         // name, empty if none is known
	Term    uint64   `json:"term"`
	Voters  int      `json:"voters"`
	Up      int      `json:"up"` // voters that answer
	Members []Member `json:"members"`

	// Level is the feature level in force, the highest that a member has heard of;
	// Next the one that it rises to when LevelHeld is empty: that says who keeps it
	// from rising, and why, in words.
	Level     int      `json:"level"`
	Next      int      `json:"next_level,omitempty"` // 0 if it is in force
	LevelHeld []string `json:"level_held,omitempty"`
}

// CanLose returns how many more voters may fail before writes stop; negative
// where they have stopped.
func (s Status) CanLose() int { return s.Up - (s.Voters/2 + 1) }

// A Member is one node of a cluster. What it says of itself is zero if it does not
// answer.
type Member struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Addr  string `json:"addr"`           // for the other nodes
	MQTT  string `json:"mqtt,omitempty"` // for clients
	Role  string `json:"role"`           // leader, follower, candidate; down if it does not answer
	Voter bool   `json:"voter"`

	// NonVoter says that it was started so as to stay without a vote.
	NonVoter bool `json:"non_voter,omitempty"`

	Applied uint64 `json:"applied"` // index of the last entry that its state holds
	Trails  uint64 `json:"trails"`  // entries behind the newest that any node has committed
	PID     int    `json:"pid"`
	Version string `json:"version,omitempty"`

	// Level is the feature level in force on it; Supports the highest that it agrees
	// to: the newest that its version knows, or one that its operator holds.
	Level    int `json:"level"`
	Supports int `json:"supports"`

	State   string `json:"state,omitempty"` // draining, drained; empty for serving
	Clients int64  `json:"clients"`         // connected to it

	// LastContact is for how many seconds it has not heard from a leader, 0 for
	// the leader.
	LastContact float64 `json:"last_contact"`
}

// A Verification compares nodes.
type Verification struct {
	Equal bool     `json:"equal"` // all answered, and alike
	Nodes []Digest `json:"nodes"`
}

// A Digest is a hash of a node's state after the entry Index.
type Digest struct {
	Node   string `json:"node"`
	Index  uint64 `json:"index"`
	Digest string `json:"digest"`          // hexadecimal; empty if there is none
	Error  string `json:"error,omitempty"` // why not
}

// managing is how long a change may take.
const managing = 25 * time.Second

// registerCluster adds what is for operators. To see how the cluster is takes no
// credentials, as with /readyz and /metrics; those that are given have to be good.
func registerCluster(mux *routes, c Cluster, o *Operators) {
	mux.HandleFunc("GET /v1/cluster", o.anybody(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), managing)
		defer cancel()
		w.Header().Set("Cache-Control", "no-store")
		writeJSON(w, http.StatusOK, c.Status(ctx))
	}))
	busy := make(chan struct{}, 1)
	mux.HandleFunc("GET /v1/cluster/verify", o.only(func(w http.ResponseWriter, r *http.Request, _ string) {
		select {
		case busy <- struct{}{}: // it reads the whole state of every node
			defer func() { <-busy }()
		default:
			w.Header().Set("Retry-After", "5")
			refuseAs(w, http.StatusServiceUnavailable, bw.Busy, "the states are being compared already")
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), managing)
		defer cancel()
		v, err := c.Verify(ctx)
		if err != nil {
			refuseCluster(w, err)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		writeJSON(w, http.StatusOK, v)
	}))
	for _, verb := range []struct {
		path string
		do   func(ctx context.Context, q change) error
	}{
		{"POST /v1/cluster/remove", func(ctx context.Context, q change) error { return c.Remove(ctx, q.Node, q.Force, q.who) }},
		{"POST /v1/cluster/promote", func(ctx context.Context, q change) error { return c.Promote(ctx, q.Node) }},
		{"POST /v1/cluster/transfer-leader", func(ctx context.Context, q change) error { return c.Transfer(ctx, q.Node) }},
		{"POST /v1/cluster/drain", func(ctx context.Context, q change) error { return c.Drain(ctx, q.Node, q.Force) }},
		{"POST /v1/cluster/resume", func(ctx context.Context, q change) error { return c.Resume(ctx, q.Node) }},
	} {
		mux.HandleFunc(verb.path, o.only(func(w http.ResponseWriter, r *http.Request, who string) {
			q, ok := readChange(w, r)
			if !ok {
				return
			}
			q.who = who
			if q.Node == "" && verb.path != "POST /v1/cluster/transfer-leader" {
				refuse(w, http.StatusBadRequest, `want {"node": "n2"}`)
				return
			}
			ctx, cancel := context.WithTimeout(r.Context(), managing)
			defer cancel()
			if err := verb.do(ctx, q); err != nil {
				refuseCluster(w, err)
				return
			}
			writeJSON(w, http.StatusOK, c.Status(ctx))
		}))
	}
}

// A change is the body of a request to change the cluster.
type change struct {
	Node  string `json:"node"`
	Force bool   `json:"force"`

	who string // asks for it
}

func readChange(w http.ResponseWriter, r *http.Request) (q change, ok bool) {
	return q, readJSON(w, r, &q)
}

// refuseCluster says why a change was not made.
func refuseCluster(w http.ResponseWriter, err error) {
	quorum, isQuorum := errors.AsType[*QuorumError](err)
	switch {
	case isQuorum:
		refuseWith(w, problem{Status: http.StatusConflict, Detail: err.Error(), Code: bw.WouldLoseQuorum.String(), Todo: quorum.Todo()})
	case errors.Is(err, ErrNoNode):
		refuseAs(w, http.StatusNotFound, bw.NoSuchNode, "%v", err)
	case errors.Is(err, ErrNoLeader):
		w.Header().Set("Retry-After", "1")
		refuseAs(w, http.StatusServiceUnavailable, bw.NoQuorum, "%v", err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrMayBeDone):
		refuseAs(w, http.StatusGatewayTimeout, bw.ClusterSlow, "it took too long, and may yet be done: %v", err)
	case errors.Is(err, ErrConflict):
		refuseAs(w, http.StatusConflict, bw.ClusterRefuses, "%v", err)
	default:
		refuseAs(w, http.StatusInternalServerError, bw.Unclassified, "%v", err)
	}
}

// refuseAs is refuse with a code of the registry, for programs.
func refuseAs(w http.ResponseWriter, status int, code bw.Code, format string, args ...any) {
	refuseWith(w, problem{Status: status, Detail: fmt.Sprintf(format, args...), Code: code.String()})
}
