package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/authn"
	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/mqtt"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/cluster"
	"github.com/bellwire/bellwire/cluster/certs"
	"github.com/bellwire/bellwire/cluster/link"
	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/profiles/alias"
	"github.com/bellwire/bellwire/profiles/blocklist"
	"github.com/bellwire/bellwire/profiles/im"
	"github.com/bellwire/bellwire/profiles/inbox"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/location"
	"github.com/bellwire/bellwire/profiles/presence"
	"github.com/bellwire/bellwire/profiles/state"
)

// This file is where the rooms meet: it alone knows that a cluster.Node is the
// broker's Log, its Machine the node's, an acl.Policy its Authorizer, and an
// mqtt.Server what drives it.

// profiles are the kinds that are served. What watchers are shown in place of
// what they may not see is made with keys that are the same on all nodes for
// good, and no client's: whoever knew them could try out what devices somebody
// has, and learn more of where they are.
func profiles(id cluster.Identity, messages inbox.Limits) []broker.Profile {
	key := func(of string) []byte {
		k := sha256.Sum256([]byte("bellwire " + of + " key 1\n" + id.Cluster))
		return k[:]
	}
	all := []broker.Profile{
		state.New(presence.New(key("presence"))),
		state.New(location.New(key("location"))),
		inbox.New(im.New(), messages),
		&alias.Profile{},
	}
	return append(all, blocklist.For(all))
}

// boundDocuments bounds the documents that come in at this node from now on.
func (s *server) boundDocuments(to kind.Bounds) {
	for _, p := range s.profiles {
		if p, ok := p.(interface{ Bound(to kind.Bounds) }); ok {
			p.Bound(to)
		}
	}
}

// notifyEvery bounds how often watchers at this node are notified from now on.
func (s *server) notifyEvery(d time.Duration) {
	for _, p := range s.profiles {
		if p, ok := p.(*state.Profile); ok {
			p.NotifyEvery(d)
		}
	}
}

// serverConfig is what a node is made of.
type serverConfig struct {
	node, domain string
	fs           *disk.FS
	dir          string
	mqtt, http   string   // addresses; http may be empty
	httpTLS      tlsSpec  // of http; without a certificate it has none
	httpMQTT     bool     // MQTT by WebSocket on http, too
	httpOrigins  []string // of the pages that may open one there

	// Of a node that is one of several; cluster is empty for one that runs alone.
	cluster       string        // address for the other nodes
	advertise     string        // by which they reach it; empty: cluster
	advertiseMQTT string        // by which clients reach mqtt; empty: mqtt
	join          []string      // at the first start: whom to ask to be taken in
	bootstrap     bool          // at the first start: begin a cluster
	clusterName   string        // for people, given to a cluster that has none; empty: bellwire, if it begins now
	nonVoter      bool          // it wants no vote
	removeDead    time.Duration // after which a silent node is taken out; 0: never
	clusterTLS    string        // directory of what follows
	credentials   *certs.Credentials

	limits         limits
	limited        bool          // limits were given
	sysInterval    time.Duration // between looks at what $SYS tells; 0: none
	holdLevel      uint8         // the feature level rises no higher; 0: to the newest
	allowAnonymous bool
	trust          trust
	policy         []byte // put in force if none is, by its name for messages
	policyName     string
	policyFault    error          // why there is no policy, if the file has faults
	clock          *testClock     // nil: the machine's
	profile        bool           // /debug/pprof on http
	listeners      []listenerSpec // beside mqtt
	bridges        []bridgeSpec   // to other brokers
	tap            broker.Tap     // nil: nobody watches
	logger         *slog.Logger
	die            func(reason string)
}

// A trust says what credentials are worth without being checked.
type trust int

const (
	trustNobody    trust = iota // the policy's users decide
	trustNothing                // they are not looked at: everybody is anonymous
	trustNames                  // a user name is who it says, whatever the password
	trustBareNames              // the same without a password; with one, the policy's users decide
)

// A server is a running node.
type server struct {
	config    serverConfig
	gate      *acl.Gate
	keys      *authn.Keys // of issuers
	parsed    parsed
	parts     readParts
	dir       *cluster.Dir
	store     *store.Store
	broker    *broker.Broker
	profiles  []broker.Profile // its
	links     *cluster.Links   // nil for a node alone
	node      *cluster.Node
	mqtt      *mqtt.Server
	ticker    *time.Ticker
	ownLimits atomic.Pointer[limits] // of this node, as configured: see changeOwn
	elsewhere elsewhere
	lists     api.Rate  // of resources, by HTTP
	fetches   *api.Rate // of anything else, likewise
	repeats   *api.Rate // of what is one resource of that

	ports                      ports
	mqttListener, httpListener net.Listener
	tlsStop                    chan struct{} // closed when certificates need not be watched any more; nil for never
	tlsTasks                   sync.WaitGroup
	handler                    atomic.Pointer[http.Handler] // of HTTP, and of administrators
	http                       *http.Server
	httpTurnedAway             turnedAway
	httpTLSFailed              atomic.Uint64 // handshakes
	failed                     chan error    // a listener broke
	digests                    digests
	denials                    denials
	shadows                    shadows
	drain                      drain
	heap                       heapRoom
	bridges                    bridges
	systemValues               []broker.SystemValue        // but those of bridges
	serving                    atomic.Pointer[mqtt.Server] // mqtt, for other nodes' questions, which come before there is one
}

// A passwordGate's numbers: how many argon2id verifications run at once, each
// about a tenth of a second of one core and 19 MiB, and how many may wait.
const (
	passwordsAtOnce = 2
	passwordsWait   = 256
)

// startServer takes the node's addresses, opens the data directory, brings the node up
// and returns when it serves. What was opened is closed again if it fails; and if it
// is the addresses that cannot be had, nothing was touched.
func startServer(ctx context.Context, c serverConfig) (s *server, err error) {
	s = &server{config: c, gate: acl.NewGate(passwordsAtOnce, passwordsWait), keys: authn.NewKeys(time.Now, c.logger), fetches: api.NewRate(c.limits.fetches.all()), repeats: api.NewRate(c.limits.fetches.same()), failed: make(chan error, 2+len(c.listeners))}
	s.ownLimits.Store(&s.config.limits)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(ctx))
		}
	}()
	if s.ports, err = takePorts(ctx, &s.config); err != nil {
		return s, err
	}
	if err := s.openLinks(ctx); err != nil {
		return s, err
	}
	if err := s.openState(); err != nil {
		return s, err
	}
	if err := s.openNode(ctx); err != nil {
		return s, err
	}
	if err := s.firstLevel(ctx); err != nil {
		return s, err
	}
	if err := s.firstSettings(ctx); err != nil {
		return s, err
	}
	if err := s.firstPolicy(ctx); err != nil {
		return s, err
	}
	if err := s.settleFounder(ctx); err != nil {
		return s, err
	}
	return s, s.listen()
}

// clusterAddress returns where other nodes reach this one; empty if it is alone.
func (s *server) clusterAddress() string {
	if s.links == nil {
		return ""
	}
	return s.links.Addr()
}

func (s *server) now() time.Time {
	if s.config.clock != nil {
		return s.config.clock.Now()
	}
	return time.Now()
}

// openLinks claims the data directory and, in a node that is one of several, begins
// to talk with the others. It returns when the node is a member of its cluster.
func (s *server) openLinks(ctx context.Context) (err error) {
	c := &s.config
	claim := cluster.Claim
	if len(c.join) > 0 {
		claim = cluster.ClaimToJoin
	}
	if s.dir, err = claim(c.fs, c.dir, c.node, newestLevel); err != nil || c.cluster == "" {
		return err
	}
	if id := s.dir.Identity(); id.Joined && id.Cluster == "" && len(c.join) == 0 {
		return fail(bw.Usage, "this node was to join a cluster and was not taken in yet, and it is not said whom to ask").
			do("give --join ADDR of a running node")
	}
	if err := s.nameCluster(); err != nil {
		return err
	}
	advertise := c.advertise
	if _, port, _ := net.SplitHostPort(c.cluster); advertise == "" && port != "0" {
		advertise = c.cluster // a name stays one: it may come to mean another address
	}
	s.links, err = cluster.Listen(s.dir, cluster.LinkConfig{
		Listener: s.ports.cluster, Dial: dialTCP, Advertise: advertise, Join: c.join, Reader: c.nonVoter, Logger: c.logger, Now: time.Now,
		TLS: &link.TLS{Server: c.credentials.Server(), Client: c.credentials.Client, Name: certs.PeerName, Explain: certs.Explain},
	})
	if e, ok := errors.AsType[*cluster.ContestedError](err); ok {
		return s.contested(e)
	}
	if err != nil {
		return err
	}
	s.ports.cluster = nil // it is the links'
	return s.links.Join(ctx)
}

// firstClusterName is what a cluster is called that begins without a name.
const firstClusterName = "bellwire"

// nameCluster names a cluster that begins now, or has no name yet. Who joins is told.
func (s *server) nameCluster() error {
	id := s.dir.Identity()
	name := s.config.clusterName
	if name == "" && s.config.bootstrap && !id.Started {
		name = firstClusterName
	}
	if name == "" || id.Joined {
		return nil
	}
	return s.dir.NameCluster(name)
}

func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

// openState reads the state in the data directory.
func (s *server) openState() (err error) {
	s.store, err = store.Open(store.Options{
		Dir: s.dir.State(), Exists: s.dir.Identity().Started, FS: s.config.fs, Logger: s.config.logger, Die: s.config.die,
		Newest: uint8(broker.NewestLevel),
	})
	if err != nil {
		return err
	}
	s.denials = newDenials(s.dir.Identity().Node)
	s.profiles = profiles(s.dir.Identity(), s.config.limits.im)
	s.boundDocuments(s.config.limits.document)
	s.notifyEvery(s.config.limits.notify)
	s.broker, err = broker.New(broker.Config{
		Node: s.dir.Identity().Node, Store: s.store, Compile: s.compile, Limits: s.config.limits.broker, Domain: s.config.domain,
		Now: s.now, Logger: s.config.logger, Profiles: s.profiles,
		Free: s.free, LowWater: s.config.limits.lowWater, MakeRoom: func() { s.node.MakeRoom() }, Tap: s.config.tap, Raised: s.levelRaised, Denied: s.denied,
		Administer: s.administer, Outlawed: s.outlawed,
		ReasonName: mqtt.ReasonName,
	})
	if err == nil {
		s.levelRaised(s.broker.Level()) // a crash may have come between the two
	}
	return err
}

// aloneStall is how long a write of the log may take. It is longer than among
// several nodes: here nobody could take over, and a machine that is overloaded
// for a moment is not a disk that is gone. Among several nodes, the others go on
// the sooner: a leader whose disk hangs is not replaced before its process ends, and
// they are to go on within six seconds. A disk that takes two seconds for each sync is
// not given up: see raftlog.
const (
	aloneStall  = 15 * time.Second
	memberStall = 3500 * time.Millisecond
)

// free returns how much of the disk is free beyond what memtables have yet to write there:
// of a volume of a GiB that is several times the low-water mark, and it is written whatever
// becomes of publishers. To be called while the node is open.
func (s *server) free() (free, total uint64) {
	free, total = s.config.fs.Free()
	return free - min(free, s.store.MemTables()+s.node.LogUnflushed()), total
}

// openNode starts the log and waits until the broker has caught up with it.
func (s *server) openNode(ctx context.Context) (err error) {
	stall := aloneStall
	if s.links != nil {
		stall = memberStall
	}
	s.node, err = cluster.Open(cluster.Config{
		Dir: s.dir, Machine: s.broker.Machine(), Logger: s.config.logger, Die: s.config.die, Now: s.now,
		Stall: stall, Links: s.links, Dead: s.config.removeDead, Version: version, PID: os.Getpid(), Answer: s.answer, Facts: s.facts,
		Raise: s.raiseLevel, Hold: cluster.Level(s.config.holdLevel), Lost: s.broker.NodeLost, Receive: s.broker.Receive, PeerUp: s.broker.PeerUp, PeerDown: s.broker.PeerDown,
	})
	if err != nil {
		return err
	}
	select {
	case <-s.node.Ready():
	case <-s.node.Removed():
		return s.takenOut()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.links == nil {
		return s.broker.Start(ctx, alone{s.node})
	}
	return s.broker.Start(ctx, s.node)
}

// alone is the log of a node that has no others to talk to: the broker tells by
// what a log can do.
type alone struct{ broker.Log }

// compile makes the broker's Authorizer of a logged policy.
func (s *server) compile(data []byte, domain string) (broker.Authorizer, error) {
	p := s.parsed.find(data, domain)
	if p == nil {
		var err error
		if p, err = acl.Parse("policy", data, domain); err != nil {
			return nil, err
		}
	}
	p = p.WithOwners(ownedKinds()...)
	return &authorizer{policy: p, operator: p, gate: s.gate, shadows: &s.shadows, read: &s.parts}, nil
}

// listen begins to serve clients.
func (s *server) listen() (err error) {
	s.ticker = time.NewTicker(mqtt.Tick)
	sockets, httpSockets := openFiles(s.config.logger)
	s.mqtt, err = mqtt.New(mqtt.Config{
		Broker: s.broker, Limits: s.config.limits.mqtt, Clock: s.now, Ticks: s.ticker.C, Logger: s.config.logger,
		Authenticate:   s.identify(),
		Claims:         authn.Claimed,
		Certified:      s.certified,
		Enhanced:       s.enhanced,
		Proved:         s.proved,
		MayStay:        s.mayStay,
		Reserved:       s.bridges.ownerOf,
		AllowAnonymous: s.config.allowAnonymous, Elsewhere: s.elsewhere.pick, Origin: originOf(s.dir.Identity()), Sockets: sockets,
	})
	if err != nil {
		return err
	}
	tellOfFewFiles(sockets, s.mqtt.Limits().Connections, s.config.logger)
	s.serving.Store(s.mqtt)
	s.heap.run(func() uint64 { return s.store.MemTables() + s.node.LogMemTables() })
	ours, err := s.makeBridges(s.config.bridges)
	if err != nil {
		return err
	}
	s.bridges.set(ours)
	handler := api.Handler(s.apiConfig())
	s.handler.Store(&handler)
	s.startSystem()
	if s.ports.mqtt != nil {
		s.mqttListener = s.ports.mqtt.release()
		go func() { s.serveEnded("mqtt", s.mqtt.Serve(s.mqttListener), mqtt.ErrServerClosed) }()
	}
	s.tellClientsAddress()
	s.serveListeners()
	s.bridges.run(s.bridges.list())
	if s.config.http == "" {
		return nil
	}
	s.httpListener = limitConnections(s.ports.http.release(), httpSockets, func() int { return s.mqtt.Limits().PerAddress }, &s.httpTurnedAway)
	s.http = httpServer(s.withMQTT(handler))
	s.http.ErrorLog = log.New(&httpLog{s.config.logger, &s.httpTLSFailed}, "", 0)
	go func() {
		serve := s.http.Serve
		if files := s.ports.httpTLS; files != nil {
			s.http.TLSConfig = files.config()
			serve = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }
		}
		s.serveEnded("http", serve(s.httpListener), http.ErrServerClosed)
	}()
	return nil
}

func (s *server) serveEnded(what string, err, expected error) {
	if !errors.Is(err, expected) {
		s.failed <- fmt.Errorf("%s: %w", what, err)
	}
}

func (s *server) apiConfig() api.Config {
	c := api.Config{Ready: s.checks, Metrics: s.metrics(), DomainMetrics: s.domainMetrics(), Profile: s.config.profile, Resources: s.resources(), Cluster: membership{s}, Operators: s.operators(), Policies: policies{s}, Domains: domains{s}, Delayed: delayedEvents{s}, Bans: banned{s}, Clients: clients{s}, Bridges: bridgeStates{s}, Backup: s.backup, Now: time.Now}
	if clock := s.config.clock; clock != nil {
		c.Test = &api.Test{
			Now: clock.Now,
			Set: func(at time.Time) error {
				if err := clock.set(at); err != nil {
					return err
				}
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // a slow machine fails no test
				defer cancel()
				return s.broker.CatchUp(ctx)
			},
			Fault: func(fault string) error {
				if err := s.config.fs.SetFault(disk.Fault(fault)); err != nil {
					return err
				}
				s.broker.CheckDisk()
				return nil
			},
		}
	}
	return c
}

// checks are the conditions under which the node serves clients.
func (s *server) checks() []api.Check {
	status := s.node.Status()
	return []api.Check{
		{Name: "leader", OK: status.LeaderID != "", Says: "raft leader " + status.LeaderID},
		{Name: "policy", OK: s.broker.Policy() != nil, Says: "a policy is in force"},
		{Name: "drain", OK: s.drain.now() == "", Says: "not taken out of service"},
		{Name: "disk", OK: !s.broker.DiskFull(), Says: "room for durable publishes"},
	}
}

// close ends the node: clients are told, what is under way is ordered, files
// are closed. It is for a server in any state of being started.
func (s *server) close(ctx context.Context) error {
	var errs []error
	s.ports.close()
	if s.tlsStop != nil {
		close(s.tlsStop)
		s.tlsTasks.Wait()
	}
	if s.http != nil {
		errs = append(errs, s.http.Close())
	}
	s.bridges.end(s.bridges.list()) // while our own broker still takes what they have to say to it
	s.elsewhere.close()
	s.shadows.close()
	s.resume() // what drains, ends
	s.drain.tasks.Wait()
	s.keys.Stop() // no login waits for a key server that hangs
	if s.mqtt != nil {
		errs = append(errs, s.mqtt.Close(ctx))
		s.ticker.Stop()
	}
	s.keys.Close()
	s.heap.close()
	if s.broker != nil {
		s.broker.Close()
	}
	if s.node != nil {
		errs = append(errs, s.node.Close())
	}
	if s.links != nil {
		errs = append(errs, s.links.Close()) // the node has closed them, if there is one
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.dir != nil {
		errs = append(errs, s.dir.Close())
	}
	return errors.Join(errs...)
}

// An authorizer is an acl.Policy as the broker asks it.
type authorizer struct {
	policy   *acl.Policy // with the parts of domains
	operator *acl.Policy // without
	parts    []*acl.Part // those
	gate     *acl.Gate
	shadows  *shadows
	read     *readParts
}

func (a *authorizer) Ceiling(who broker.Who, what broker.Action, topic string, at int64) broker.Decision {
	d := a.policy.Ceiling(acl.Who(who), actions[what], topic, time.Unix(0, at))
	a.shadows.see(shadowCeiling, who, what, topic, at, d.Allow, d.Rule)
	return decision(d)
}

func (a *authorizer) Decide(who broker.Who, what broker.Action, topic string, at int64) broker.Decision {
	d := a.policy.Decide(acl.Who(who), actions[what], topic, time.Unix(0, at))
	a.shadows.see(shadowDecide, who, what, topic, at, d.Allow, d.Rule)
	return decision(d)
}

var actions = [...]acl.Action{broker.ActPublish: acl.Publish, broker.ActSubscribe: acl.Subscribe}

func decision(d acl.Decision) broker.Decision {
	return broker.Decision{Allow: d.Allow, Until: kind.Nanos(d.Until), Windowed: d.Windowed, Outside: outside(d.Outside), Reason: d.Reason}
}

func (a *authorizer) Grant(who broker.Who, filter string, at int64) broker.Decision {
	g := a.policy.Grant(acl.Who(who), filter, time.Unix(0, at))
	a.shadows.see(shadowGrant, who, broker.ActSubscribe, filter, at, g.Allowed, g.Rule)
	return broker.Decision{Allow: g.Allowed, Windowed: g.Windowed, Outside: outside(g.Outside), Reason: g.Reason}
}

func (a *authorizer) Always(who broker.Who, filter string) bool {
	return a.policy.Always(acl.Who(who), filter)
}

// Delays is what may wait for its time.
func (a *authorizer) Delays() broker.DelayLimits {
	d := a.operator.Delays()
	return broker.DelayLimits{Longest: d.Longest, Events: d.Events, Bytes: d.Bytes, OwnerEvents: d.UserEvents, OwnerBytes: d.UserBytes}
}

// SignsIn says whether anybody can have a name.
func (a *authorizer) SignsIn() bool { return a.policy.SignsIn() }

// Rewrite is the topic that is meant by who names one.
func (a *authorizer) Rewrite(who broker.Who, what broker.Action, name string) (string, error) {
	to, _, err := a.operator.Rewrite(acl.Who(who), actions[what], name)
	return to, err
}

// Given is what a client is subscribed to when its session begins.
func (a *authorizer) Given(who broker.Who, address string) (all []broker.Given) {
	for _, g := range a.operator.Given(acl.Who(who), address) {
		all = append(all, broker.Given{Entry: g.Entry, Subscription: event.Subscription{
			Filter: g.Filter, QoS: g.QoS, NoLocal: g.NoLocal, RetainAsPublished: g.RetainAsPublished, RetainHandling: g.RetainHandling,
		}})
	}
	return all
}

func (a *authorizer) Memory(topic string) bool { return a.policy.Memory(topic) }

func (a *authorizer) MayOpen(who broker.Who, filter string, after, upto int64) bool {
	return a.policy.MayOpen(acl.Who(who), filter, time.Unix(0, after), time.Unix(0, upto))
}

func (a *authorizer) Authenticate(user string, password []byte) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	principal, err := a.policy.Authenticate(ctx, a.gate, user, password)
	if errors.Is(err, acl.ErrCredentials) {
		return "", badCredentials(err)
	}
	return principal, err
}

func (a *authorizer) Credential(principal, way string) string {
	return a.policy.Credential(principal, way)
}

func (a *authorizer) Knows(principal string) bool { return a.policy.Knows(principal) }

func (a *authorizer) Known() []string { return a.policy.Known() }

func (a *authorizer) NextEdge(after int64) int64 {
	return kind.Nanos(a.policy.NextEdge(time.Unix(0, after)))
}

func outside(o acl.Outside) broker.Outside {
	switch o {
	case acl.Announce:
		return broker.Announce
	case acl.End:
		return broker.End
	}
	return broker.Hold
}
