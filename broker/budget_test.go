package broker

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/disk"
)

// flood publishes n events, so many to an entry.
func (d *driver) flood(topic string, n, perEntry int) {
	d.t.Helper()
	for ; n > 0; n -= perEntry {
		var all []event.Command
		for range min(n, perEntry) {
			all = append(all, publishing(topic, "0123456789", 1))
		}
		d.entry(all...)
	}
}

// member connects a session that subscribes to filters at QoS 1.
func (d *driver) member(client string, expiry uint32, recvMax uint16, filters ...string) *opened {
	d.t.Helper()
	o := d.connect(event.Connect{Client: client, Principal: "alice@a", Expiry: expiry, ReceiveMax: recvMax})
	var subs []event.Subscription
	for _, f := range filters {
		subs = append(subs, event.Subscription{Filter: f, QoS: 1})
	}
	d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: subs})
	return o
}

// isDue says whether there is something to do now.
func (d *driver) isDue() bool {
	next := d.machines[0].NextWake()
	return next != 0 && next <= d.now
}

// settleDown puts empty entries through the log until nothing is due, and returns how
// many that were.
func (d *driver) settleDown() (n int) {
	d.t.Helper()
	for ; d.isDue(); n++ {
		if n > 100_000 {
			d.t.Fatal("what is due comes to no end")
		}
		d.entry(&event.Tick{})
	}
	return n
}

// budgetOf has all machines do so much of what is due.
func (d *driver) budgetOf(items int) {
	for _, m := range d.machines {
		m.budget.perEntry = items
	}
}

// A mass is many sessions that are about to end at once: each has a queue, and copies
// of jobs as a member of groups that have long queues themselves. A keeper, who is
// away, keeps the groups.
type mass struct{ sessions, own, groups, jobs int }

func (x mass) gather(d *driver) {
	d.t.Helper()
	for _, m := range d.machines {
		m.streams.crowd = 1 << 30
	}
	var filters []string
	for i := range x.groups {
		filters = append(filters, fmt.Sprintf("$share/g%d/job", i))
	}
	k := d.member("keeper", event.Never, 1, filters...)
	d.entry(&event.Disconnect{Session: k.session, Epoch: k.epoch})
	var leave []event.Command
	for i := range x.sessions {
		o := d.member(fmt.Sprint("m", i), 60, 1000, append(filters, "own")...)
		leave = append(leave, &event.Disconnect{Session: o.session, Epoch: o.epoch, Sent: 5})
	}
	d.flood("job", x.jobs, 50)
	d.flood("own", x.own, 50)
	d.entry(leave...)
}

// The most that entries do to queues, by what changes of them in the store.
func (d *driver) mostOf(entry func()) func() int {
	most := 0
	keys := func() map[string]bool {
		all := map[string]bool{}
		for _, k := range keysOf(d.machines[0].store, store.Queue) {
			all[k] = true
		}
		return all
	}
	before := keys()
	return func() int {
		entry()
		after, n := keys(), 0
		for k := range before {
			if !after[k] {
				n++
			}
		}
		for k := range after {
			if !before[k] {
				n++
			}
		}
		before = after
		most = max(most, n)
		return most
	}
}

// Many sessions that end at once, with long queues of their own and as members of
// groups, end by entries of which none does more than its budget; all of it is done in
// the end, and no job is lost. A node that starts anew meanwhile, or has a copy of
// the state, does the same.
func TestEntryKeepsToItsBudget(t *testing.T) {
	x := mass{sessions: 12, own: 200, groups: 3, jobs: 600}
	for name, items := range map[string]int{"bounded": 256, "not bounded": 1 << 30} {
		t.Run(name, func(t *testing.T) {
			fs := disk.Memory()
			u, twin := openMachine(t, fs, "/data/state", "n1"), openMachine(t, disk.Memory(), "/data/state", "n1")
			d := drive(t, u, twin)
			d.budgetOf(items)
			d.entry(&event.Raise{Level: uint8(NewestLevel)})
			s := Limits{}.Settings("")
			d.entry(&s)
			x.gather(d)
			most := d.mostOf(func() { d.entry(&event.Tick{}) })
			d.now += 61e9
			did := 0
			for n := 0; d.isDue(); n++ {
				did = most()
				if spent := u.budget.spent; spent > items+endWeight+len(u.groups)+bodyWeight+2 {
					t.Fatalf("an entry did %d items, want %d at most and what is not divided", spent, items)
				}
				switch n % 5 {
				case 1:
					must(t, twin.load())
				case 3:
					if len(d.machines) == 2 && n > 10 {
						d.machines = append(d.machines, copyOf(t, u, fs))
					}
				}
			}
			if bounded := did <= items; items < 1<<30 && !bounded || items == 1<<30 && did < 4*256 {
				t.Errorf("an entry changes %d keys of queues", did)
			}
			for _, g := range u.groups {
				if g.queue.count != uint64(x.jobs) {
					t.Errorf("%s keeps %d jobs, want all %d", g.filter, g.queue.count, x.jobs)
				}
			}
			if got, want := len(keysOf(u.store, store.Queue)), x.groups*x.jobs; got != want || len(u.sessions) != 1 {
				t.Errorf("%d entries of queues and %d sessions are left, want %d and 1", got, len(u.sessions), want)
			}
			if len(u.budget.waiting) != 0 {
				t.Errorf("chores are noted that are done: %v", u.budget.waiting)
			}
		})
	}
}

// copyOf returns a machine that goes on from a copy of m's state.
func copyOf(t *testing.T, m *machineUnderTest, fs *disk.FS) *machineUnderTest {
	t.Helper()
	if _, _, err := m.Checkpoint("/data/copy"); err != nil {
		t.Fatal(err)
	}
	other := openMachine(t, fs, "/data/other", "n1")
	other.life, other.budget.perEntry = m.life, m.budget.perEntry
	must(t, other.Restore("/data/copy"))
	other.streams.crowd, other.steps = m.streams.crowd, nil
	t.Cleanup(func() { other.close(t) })
	return other
}

// What time brings about happens with the first entry of its time, however much there
// is to purge: a session expires, a subscription ends with its window. And however
// much time brings about, each entry purges some.
func TestTimeIsNotDelayedByPurges(t *testing.T) {
	const items = 64
	d, u := streaming(t)
	d.budgetOf(items)
	u.streams.crowd = 1 << 30
	var ends []event.Command
	for i := range 20 {
		o := d.member(fmt.Sprint("m", i), 3600, 10, "own")
		ends = append(ends, &event.Disconnect{Session: o.session, Epoch: o.epoch, SetExpiry: true})
	}
	d.flood("own", 500, 50)
	last := d.member("last", 5, 10, "other")
	d.entry(append(ends, &event.Disconnect{Session: last.session, Epoch: last.epoch})...)
	purge := func(what string) {
		t.Helper()
		before := len(keysOf(u.store, store.Queue))
		d.entry(&event.Tick{})
		if after := len(keysOf(u.store, store.Queue)); before-after < items/4-2*endWeight || after == 0 {
			t.Errorf("%s: %d of %d entries were purged, want %d or so, and that some are left", what, before-after, before, items/4)
		}
	}
	purge("nothing else is due")
	d.now += 5e9
	purge("a session expires")
	if u.sessions["last"] != nil {
		t.Error("what has expired waits for purges")
	}
	var gone []event.Command
	for i := range 40 {
		o := d.member(fmt.Sprint("brief", i), 1, 10)
		gone = append(gone, &event.Disconnect{Session: o.session, Epoch: o.epoch})
	}
	d.entry(gone...)
	d.now += 1e9
	for n := 0; len(u.sessions) > 0; n++ {
		if n > 40*(endWeight+1)/(items/2)*2 {
			t.Fatalf("after %d entries %d sessions are left that have expired", n, len(u.sessions))
		}
		purge("many sessions expire")
	}
	d.settleDown()
	if left := len(keysOf(u.store, store.Queue)); left != 0 {
		t.Errorf("%d entries are left", left)
	}
}

// Chores take turns, also while the clock stands still: a short purge that comes after
// a long one does not wait for its end, and jobs wait for no purge.
func TestChoresTakeTurns(t *testing.T) {
	d, u := streaming(t)
	d.budgetOf(4 * itemsPerWake)
	u.streams.crowd = 1 << 30
	long := d.member("long", 3600, 10, "own")
	d.flood("own", 12*itemsPerWake, itemsPerWake)
	short := d.member("short", 3600, 10, "own")
	d.flood("own", 10, 10)
	clean := func(o *opened) event.Command {
		return &event.Disconnect{Session: o.session, Epoch: o.epoch, SetExpiry: true}
	}
	left := func(o *opened) int {
		lower := entryKey(nil, o.session, 0)
		n := 0
		u.store.Scan(lower, store.End(lower[:9]), func(_, _ []byte) bool { n++; return true })
		return n
	}
	keeper := d.member("keeper", 3600, 1, "$share/g/job")
	d.entry(&event.Disconnect{Session: keeper.session, Epoch: keeper.epoch})
	d.flood("job", 5, 5)
	d.entry(clean(long))
	d.entry(&event.Tick{})
	d.entry(clean(short))
	heir := d.member("heir", 0, 100, "$share/g/job") // two entries
	d.entry(&event.Tick{})
	if n := left(short); n != 0 {
		t.Errorf("a short queue has %d entries left, and waits for a long one", n)
	}
	if n := left(heir); n != 5 {
		t.Errorf("%d jobs were given to who came, want 5: the others wait for a purge", n)
	}
	if n := left(long); n == 0 || n > 12*itemsPerWake {
		t.Errorf("the long queue has %d entries left, want that it is not done yet", n)
	}
	d.settleDown()
	if n := left(long); n != 0 {
		t.Errorf("%d entries are left", n)
	}
}

// A chore that is wanted again while it waits is done once.
func TestChoresAreNotedOnce(t *testing.T) {
	d, u := streaming(t)
	k := d.member("k", 3600, 1, "$share/g/job")
	d.budgetOf(1) // nothing of it is begun
	for range 20 {
		d.flood("job", 2, 2)
		d.entry(&event.PassOver{Session: k.session, Epoch: k.epoch, Entries: []uint64{u.numbers[k.session].queue.below}})
	}
	if n := len(keysOf(u.store, store.Wakes)); n != 1 {
		t.Errorf("%d wakes are set, want 1: the group's", n)
	}
	must(t, u.load())
	if len(u.budget.waiting) != 1 || !d.isDue() {
		t.Errorf("after a start %v is noted, due: %v, want one chore, that is due", u.budget.waiting, d.isDue())
	}
}

// What a member's client was passed over makes room for what waits in its group.
func TestPassedOverMakesRoom(t *testing.T) {
	u, _, d := sharedTwins(t, Limits{})
	o := d.member("a", 3600, 2, "$share/g/job", "x")
	d.entry(publishing("x", "1", 1), publishing("x", "2", 1), publishing("job", "1", 1))
	g, r := u.byFilter["$share/g/job"], u.numbers[o.session]
	if g.queue.count != 1 {
		t.Fatalf("%d jobs wait, want 1: the member is behind", g.queue.count)
	}
	d.entry(&event.PassOver{Session: o.session, Epoch: o.epoch, Entries: []uint64{0, 1}})
	d.settleDown()
	if g.queue.count != 0 || r.queue.count != 1 {
		t.Errorf("%d jobs wait for a member that is idle, which has %d", g.queue.count, r.queue.count)
	}
}

// A member's connection is lost while a stream owes it what comes before its copies:
// those were not there to be sent, and go to others.
func TestCopiesBehindWhatIsOwedWereNotSent(t *testing.T) {
	u, twin, d := sharedTwins(t, Limits{Sessions: 1000})
	d.gone(crowdDefault, "hot")
	k := d.member("keeper", event.Never, 1, "$share/g/job")
	d.entry(&event.Disconnect{Session: k.session, Epoch: k.epoch})
	k = d.member("away0", event.Never, 100, "$share/g/job")
	d.entry(&event.Disconnect{Session: k.session, Epoch: k.epoch})
	d.settleDown()
	d.flood("hot", 500, 50)
	for _, m := range []*machineUnderTest{u, twin} {
		m.streams.ahead, m.streams.piece = 8, 8
	}
	as := event.Connect{Client: "away0", Principal: "alice@a", Expiry: event.Never, ReceiveMax: 100}
	o := d.connect(as)
	d.flood("job", 3, 3)
	r, g := u.numbers[o.session], u.byFilter["$share/g/job"]
	if len(r.copies) != 3 || r.ready() > r.copies[0] || r.ready() == 0 {
		t.Fatalf("the member has copies %v, and may be sent what is before %d", r.copies, r.ready())
	}
	b := event.AppendHeader(nil, event.Header{Node: "n1", Incarnation: 2 << lifeBits, Seq: 1})
	d.raw(event.AppendCommand(b, &event.NodeUp{})) // its node begins anew
	for seq := uint64(2); d.isDue(); seq++ {
		b := event.AppendHeader(nil, event.Header{Node: "n1", Incarnation: 2 << lifeBits, Seq: seq})
		d.raw(event.AppendCommand(b, &event.Tick{}))
		must(t, twin.load())
	}
	if r.connected() || len(r.copies) != 0 || g.queue.count != 3 {
		t.Errorf("connected: %v; the member keeps %v and the group has %d, want all 3", r.connected(), r.copies, g.queue.count)
	}
}

// Gaps in a group's queue are bounded, though who is there may have every other event
// only; what is left is given in its order when somebody may have it.
func TestGapsOfAGroupAreBounded(t *testing.T) {
	u, twin, d := sharedTwins(t, Limits{})
	d.entry(&event.Policy{Data: []byte("half")}) // alice@a: a/# and b/#; others a/#
	k := d.member("alice@a", event.Never, 1, "$share/g/#")
	d.entry(&event.Disconnect{Session: k.session, Epoch: k.epoch})
	const pairs = 2000
	for from := 0; from < pairs; from += 100 {
		var all []event.Command
		for i := range 100 {
			all = append(all, publishing("a/1", fmt.Sprint(from+i), 1), publishing("b/1", fmt.Sprint(from+i), 1))
		}
		d.entry(all...)
	}
	g := u.byFilter["$share/g/#"]
	o := d.connect(event.Connect{Client: "carol", Principal: "carol", ReceiveMax: 1000})
	d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: []event.Subscription{{Filter: "$share/g/#", QoS: 1}}})
	r := u.numbers[o.session]
	for i := 0; r.queue.next < pairs || r.queue.count > 0; i++ {
		if i > pairs {
			t.Fatalf("carol was given %d, and %d wait", r.queue.next, g.queue.count)
		}
		next := r.queue.next
		d.entry(&event.Settle{Session: o.session, Epoch: o.epoch, Below: next, Sent: next})
		if n := len(g.queue.done); n > spansKept {
			t.Fatalf("the group's queue has %d gaps, want %d noted at most", n, spansKept)
		}
		if i%3 == 0 {
			must(t, twin.load())
		}
	}
	if g.queue.count != pairs {
		t.Fatalf("%d wait, want those %d that carol may not have", g.queue.count, pairs)
	}
	d.entry(&event.Disconnect{Session: o.session, Epoch: o.epoch})
	u.steps = nil
	o = d.connect(event.Connect{Client: "alice@a", Principal: "alice@a", Expiry: event.Never, ReceiveMax: 1000})
	r = u.numbers[o.session]
	var got []string
	for i := 0; len(got) < pairs; i++ {
		if i > pairs {
			t.Fatalf("alice was given %d, and %d wait", len(got), g.queue.count)
		}
		d.settleDown()
		u.store.Scan(entryKey(nil, o.session, r.queue.below), entryKey(nil, o.session, r.queue.next), func(_, value []byte) bool {
			en := mustEntry(value)
			u.out = &applied{}
			got = append(got, string(u.entryEvent(&en).Payload))
			return true
		})
		next := r.queue.next
		d.entry(&event.Settle{Session: o.session, Epoch: o.epoch, Below: next, Sent: next})
	}
	for i, p := range got {
		if p != fmt.Sprint(i) {
			t.Fatalf("alice's number %d is %s: out of order", i, p)
		}
	}
	d.entry(&event.Tick{})
	if q := &g.queue; q.count != 0 || q.below != q.next || q.done != nil {
		t.Errorf("%d are left in the group's queue, which begins at %d of %d, with gaps %v", q.count, q.below, q.next, q.done)
	}
}

// A member that acknowledges every second job only is given no more than its window of
// them, so that the gaps in its queue are no more either; when it goes, what it has
// kept is found without a look at what else it has queued.
func TestEverySecondJob(t *testing.T) {
	u, twin, d := sharedTwins(t, Limits{Sessions: 1000})
	k := d.member("keeper", event.Never, 1, "$share/g/job")
	d.entry(&event.Disconnect{Session: k.session, Epoch: k.epoch})
	o := d.member("evil", event.Never, 65535, "$share/g/job", "own")
	r := u.numbers[o.session]
	told := uint64(0)
	for range 60 {
		d.flood("job", 100, 100)
		var done []uint64
		for ; told < r.queue.next; told += 2 {
			done = append(done, told)
		}
		d.entry(&event.Settle{Session: o.session, Epoch: o.epoch, Sent: r.queue.next, Done: done})
		if len(r.queue.done) > sharedAtOnce+1 || len(r.copies) > sharedAtOnce {
			t.Fatalf("%d gaps and %d copies, want %d at most", len(r.queue.done), len(r.copies), sharedAtOnce)
		}
	}
	held := len(r.copies)
	if held != sharedAtOnce {
		t.Fatalf("the member holds %d, want all that it is given at once, %d", held, sharedAtOnce)
	}
	d.flood("own", 500, 100)
	must(t, twin.load())
	checkCopies(t, u.Machine)
	checkCopies(t, twin.Machine)
	d.entry(&event.Disconnect{Session: o.session, Epoch: o.epoch}) // which says nothing of what was sent
	d.settleDown()
	if len(r.copies) != held {
		t.Errorf("%d of %d that it may have been sent are left to it", len(r.copies), held)
	}
	d.entry(&event.Connect{Client: "evil", Principal: "alice@a", Clean: true})
	d.settleDown()
	if got, want := u.byFilter["$share/g/job"].queue.count, uint64(60*100/2+held/2); got < want-uint64(held) || len(keysOf(u.store, store.Queue)) != int(got) {
		t.Errorf("the group has %d of %d, and %d entries are in queues", got, want, len(keysOf(u.store, store.Queue)))
	}
}

// checkCopies compares what is known of members' copies with what their queues have.
func checkCopies(t *testing.T, m *Machine) {
	t.Helper()
	have := map[uint64][]uint64{}
	m.store.Scan([]byte{byte(store.Queue)}, []byte{byte(store.Queue) + 1}, func(key, value []byte) bool {
		if n := store.Uint64At(key, 1); mustEntry(value).group != 0 {
			have[n] = append(have[n], store.Uint64At(key, 9))
		}
		return true
	})
	for n, r := range m.numbers {
		if !slices.Equal(r.copies, have[n]) {
			t.Errorf("entry %d: of session %d copies %v are known, and there are %v", m.Applied(), n, r.copies, have[n])
		}
	}
}

// BenchmarkWorstEntry is what the longest entry takes while many sessions end at once
// that have long queues, with copies of jobs that go to others, by the clock
// (worst-ms), and for how much of that its thread had a processor (worst-cpu-ms): on a
// machine that others use the one is much longer. And what an item of its budget costs.
func BenchmarkWorstEntry(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	x := mass{sessions: 100, own: 2000, groups: 8, jobs: 10_000}
	worst, worstCPU, items, entries := time.Duration(0), time.Duration(0), 0, 0
	total := time.Duration(0)
	for b.Loop() {
		b.StopTimer()
		d, u := benchStreaming(b)
		x.gather(d)
		b.StartTimer()
		for _, wait := range []int64{0, 61e9} {
			for d.now += wait; d.isDue(); entries++ {
				began, cpu := time.Now(), threadTime()
				d.entry(&event.Tick{})
				cpu = threadTime() - cpu
				worst, worstCPU, total = max(worst, time.Since(began)), max(worstCPU, cpu), total+cpu
				items += u.budget.spent
			}
		}
	}
	b.ReportMetric(float64(worst.Microseconds())/1000, "worst-ms")
	b.ReportMetric(float64(worstCPU.Microseconds())/1000, "worst-cpu-ms")
	b.ReportMetric(float64(total.Nanoseconds())/float64(items), "cpu-ns/item")
	b.ReportMetric(float64(entries)/float64(b.N), "entries")
}

// BenchmarkJudge is what it takes to judge a session that is away anew, as another
// policy asks for, of a hundred thousand with a subscription each.
func BenchmarkJudge(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const sessions = 100_000
	d, _ := benchStreaming(b)
	d.gone(sessions, "hot/#")
	total := time.Duration(0)
	for b.Loop() {
		d.entry(&event.Policy{Data: []byte("all")})
		began := threadTime()
		for d.isDue() {
			d.entry(&event.Tick{})
		}
		total += threadTime() - began
	}
	b.ReportMetric(float64(total.Nanoseconds())/float64(b.N*sessions), "cpu-ns/session")
}
