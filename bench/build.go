package bench

import "fmt"

// build makes the sources, windows and connections of the scenario.
func (ld *load) build() {
	switch sc := ld.Scenario; {
	case sc.Filters > 0:
		ld.buildFilters()
	case sc.Permissions:
		ld.buildPeople()
	case sc.Watch > 0:
		ld.buildPresence()
	default:
		ld.buildFanOut()
	}
	ld.buildAbsent()
	for _, w := range ld.windows {
		deliveries := 0
		for _, src := range w.sources {
			deliveries += len(src.tracks)
		}
		w.fanOut = max(deliveries/len(w.sources), 1)
	}
}

// buildFanOut: each publisher has one topic, each topic its own subscribers.
func (ld *load) buildFanOut() {
	sc := ld.Scenario
	for i := range sc.Publishers {
		w := ld.addWindow(ld.Window)
		src := ld.addSource(fmt.Sprintf("bench/%d", i), ld.addPublisher(w), w)
		src.from.node = i
		for range sc.FanOut {
			c := ld.addSubscriber(src.topic)
			c.node = i + 1 // an event has to cross
			c.sub.number = src.number
			src.tracks = append(src.tracks, &c.sub.only)
		}
	}
}

// buildAbsent: durable sessions at all nodes, for topics of which nothing comes.
func (ld *load) buildAbsent() {
	for i := range ld.Scenario.Absent {
		ld.absent = append(ld.absent, &conn{
			version: ld.Version, name: fmt.Sprintf("bench-a%d", i), node: i,
			filters: []string{fmt.Sprintf("bench/absent/%d", i)}, qos: 1, durable: true, absent: true,
		})
	}
}

// filterConns is how many connections share the filters, half of them exact and
// half with a wildcard, and filterPublishers how many publish to them.
const (
	filterConns      = 100
	filterPublishers = 4
)

// buildFilters: half of the filters name one topic each, the other half cover
// one each with a wildcard, on other connections; so a message has two
// deliveries, and many filters that are not its own.
func (ld *load) buildFilters() {
	var subs, pubs []*conn
	for range filterConns {
		c := ld.addSubscriber()
		c.sub.many = map[uint32]*track{}
		subs = append(subs, c)
	}
	for range filterPublishers {
		pubs = append(pubs, ld.addPublisher(ld.addWindow(ld.Window)))
	}
	for i := range ld.Scenario.Filters / 2 {
		p := pubs[i%filterPublishers]
		src := ld.addSource(fmt.Sprintf("d/X/%d/v", i), p, p.pub.window)
		ld.watch(subs[i%(filterConns/2)], src, src.topic)
		ld.watch(subs[filterConns/2+i%(filterConns/2)], src, fmt.Sprintf("d/X/%d/+", i))
	}
}

// presenceWindow is how many status messages are outstanding over all users.
const presenceWindow = 200

// buildPresence: everybody publishes a status and watches some others.
func (ld *load) buildPresence() {
	sc := ld.Scenario
	w := ld.addWindow(presenceWindow)
	for i := range sc.Publishers {
		c := ld.addSubscriber()
		c.sub.many = map[uint32]*track{}
		c.pub = ld.newPublisher(w)
		ld.pubs = append(ld.pubs, c)
		ld.addSource(fmt.Sprintf("bench/%d", i), c, w)
	}
	ld.watchOthers()
}

// buildPeople: the same with people who sign in, and who change in turn. There
// must be more of them than messages under way: of two changes of one user that
// meet in the broker's log only the latter has to be shown.
func (ld *load) buildPeople() {
	w := ld.addWindow(presenceWindow)
	w.turn = 0
	for _, p := range people(ld.Scenario) {
		c := ld.addSubscriber()
		c.user, c.token, c.barred = p.user, p.token, p.barred
		c.sub.many = map[uint32]*track{}
		c.pub = ld.newPublisher(w)
		ld.pubs = append(ld.pubs, c)
		src := ld.addSource(p.topic, c, w)
		src.message = documentTemplate(ld.Version, p.topic, ld.Scenario.QoS, ld.Scenario.Retain, ld.Scenario.Payload)
	}
	ld.watchOthers()
}

// watchOthers makes everybody a subscriber of Watch others, the same ones in
// every run.
func (ld *load) watchOthers() {
	n := ld.Scenario.Publishers
	for i, c := range ld.subs {
		for _, j := range ld.random.Perm(n - 1)[:ld.Scenario.Watch] {
			src := ld.sources[(i+1+j)%n] // never oneself
			ld.watch(c, src, src.topic)
		}
	}
}

// watch makes c a subscriber of src by filter. Who is barred subscribes like
// everybody else, and is to have nothing.
func (ld *load) watch(c *conn, src *source, filter string) {
	c.filters = append(c.filters, filter)
	if c.barred {
		return
	}
	t := new(track)
	c.sub.many[src.number] = t
	src.tracks = append(src.tracks, t)
}

func (ld *load) addWindow(messages int) *window {
	w := &window{messages: messages, receive: maxReceive, turn: -1, left: -1}
	ld.windows = append(ld.windows, w)
	return w
}

func (ld *load) addPublisher(w *window) *conn {
	c := &conn{version: ld.Version, name: fmt.Sprintf("bench-p%d", len(ld.pubs)), pub: ld.newPublisher(w)}
	ld.pubs = append(ld.pubs, c)
	return c
}

func (ld *load) newPublisher(w *window) *publisher {
	p := &publisher{window: w}
	if ld.Scenario.QoS > 0 {
		p.sent = make([]int64, 1<<16)
	}
	return p
}

func (ld *load) addSubscriber(filters ...string) *conn {
	c := &conn{
		version: ld.Version, name: fmt.Sprintf("bench-s%d", len(ld.subs)),
		filters: filters, qos: ld.Scenario.QoS, durable: ld.Scenario.Durable, sub: new(subscriber),
	}
	ld.subs = append(ld.subs, c)
	return c
}

func (ld *load) addSource(topic string, from *conn, w *window) *source {
	sc := ld.Scenario
	src := &source{number: uint32(len(ld.sources)), topic: topic, from: from, window: w}
	src.message = newTemplate(ld.Version, topic, sc.QoS, sc.Retain, sc.Payload)
	ld.sources = append(ld.sources, src)
	w.sources = append(w.sources, src)
	return src
}
