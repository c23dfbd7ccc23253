package event

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/broker/secret"
	"github.com/bellwire/bellwire/internal/golden"
)

// A form is one value that is on disks, under the name that its golden line
// has. Names end in the version of the program that first wrote the form, so
// that a form which changes gets a line of its own and the old one stays.
type form struct {
	name  string
	value any // a Command, *Event, *Will, *Subscription or Header
}

func fullEvent() *Event {
	return &Event{
		Topic: "plant/1/temperature", Payload: []byte("21.5"), Props: []byte{0x01, 0x01}, QoS: 2, Retain: true,
		At: 1_772_000_000_123_456_789, Expires: 1_772_000_060_000_000_000, Origin: 300,
	}
}

func fullWill() *Will {
	return &Will{
		Topic: "plant/1/status", Payload: []byte("gone"), Props: []byte{0x01, 0x01}, QoS: 1, Retain: true,
		Delay: 30, Expiry: 3600, Expires: true,
	}
}

// forms are every kind of value with all its fields set, and with none.
func forms() []form {
	return []form{
		{"event/full/1", fullEvent()},
		{"event/empty/1", &Event{}},
		{"will/full/1", fullWill()},
		{"will/empty/1", &Will{}},
		{"subscription/full/1", &Subscription{Filter: "plant/+/#", QoS: 2, NoLocal: true, RetainAsPublished: true, RetainHandling: 2, ID: 268_435_455}},
		{"subscription/empty/1", &Subscription{}},
		{"subscription/named/4", &Subscription{Filter: "new/+", QoS: 1, ID: 7, Named: "old/+"}},
		{"header/1", Header{Node: "n1", Incarnation: 1<<63 + 5, Seq: 300}},
		{"connect/full/1", &Connect{
			Client: "c1", Principal: "bob@example.com", Version: 5, Clean: true, Expiry: Never, ReceiveMax: 65535,
			At: 1_772_000_000_123_456_789, Will: fullWill(),
		}},
		{"connect/empty/1", &Connect{}},
		{"connect/origin/4", &Connect{
			Client: "c1", Principal: "bob@example.com", Version: 5, ReceiveMax: 65535, At: 1_772_000_000_123_456_789, Will: fullWill(),
			Origin: &Origin{Address: "[2001:db8::1]:50123", Listener: "mqtt", KeepAlive: 65535},
		}},
		{"connect/unknown/4", &Connect{Origin: &Origin{}}},
		{"disconnect/full/1", &Disconnect{Session: 7, Epoch: 300, PublishWill: true, SetExpiry: true, Expiry: 3600, Sent: 1 << 40, At: -1}},
		{"disconnect/empty/1", &Disconnect{}},
		{"disconnect/why/4", &Disconnect{Session: 7, Epoch: 300, PublishWill: true, SetExpiry: true, Expiry: 3600, Sent: 1 << 40, At: -1, Why: 0x8D}},
		{"disconnect/normal/4", &Disconnect{Session: 7, Epoch: 300, Why: ReasonNormal}},
		{"disconnect/exact/4", &Disconnect{Session: 7, Epoch: 300, Sent: 1 << 40, At: -1, Why: ReasonLost, Exact: true, Maybe: 1<<40 + 5}},
		{"subscribe/full/1", &Subscribe{Session: 7, Epoch: 300, Subs: []Subscription{{Filter: "a", QoS: 1}, {Filter: "b/#", RetainHandling: 1, ID: 5}}}},
		{"subscribe/empty/1", &Subscribe{Subs: []Subscription{}}},
		{"unsubscribe/full/1", &Unsubscribe{Session: 7, Epoch: 300, Filters: []string{"a", "b/#"}}},
		{"unsubscribe/empty/1", &Unsubscribe{Filters: []string{}}},
		{"publish/full/1", &Publish{Epoch: 300, PacketID: 65535, Event: fullEvent()}},
		{"publish/empty/1", &Publish{Event: &Event{}}},
		{"release/full/1", &Release{Session: 7, Epoch: 300, PacketID: 65535}},
		{"release/empty/1", &Release{}},
		{"settle/full/1", &Settle{Session: 7, Epoch: 300, Below: 1000, Sent: 1 << 40, Done: []uint64{1001, 1003}, Received: []uint64{1002}}},
		{"settle/empty/1", &Settle{}},
		{"passover/full/1", &PassOver{Session: 7, Epoch: 300, Entries: []uint64{1001, 1003}}},
		{"passover/empty/1", &PassOver{}},
		{"replay/full/1", &Replay{
			Session: 7, Epoch: 300, Filter: "a/#", After: 1 << 50, Topics: []string{"a/1", "a/2"}, Position: "a/2", Final: true,
			At: 1_772_000_000_123_456_789,
		}},
		{"replay/empty/1", &Replay{Topics: []string{}}},
		{"policy/full/1", &Policy{Data: []byte("rules: []")}},
		{"policy/empty/1", &Policy{}},
		{"nodeup/full/1", &NodeUp{At: 1_772_000_000_123_456_789}},
		{"nodeup/empty/1", &NodeUp{}},
		{"tick/1", &Tick{}},
		{"settings/full/1", &Settings{
			Domain: "example.com", Sessions: 1_000_000, SubscriptionsPerSession: 100_000, RetainedTopics: 10_000_000, QueueEvents: 100_000, QueueBytes: 64 << 20,
		}},
		{"settings/empty/1", &Settings{}},
		{"settings/principals/4", &Settings{Domain: "example.com", Sessions: 1_000_000, SessionsPerPrincipal: 300}},
		{"settings/subscriptions/4", &Settings{Domain: "example.com", Sessions: 1_000_000, SubscriptionsPerPrincipal: 1000, WildcardsPerPrincipal: 10}},
		{"settings/single/4", &Settings{Domain: "example.com", Sessions: 1_000_000, Principals: Principals(map[string]PrincipalBounds{
			"ana@example.com": {Sessions: 5, Subscriptions: 1000, Wildcards: Unbounded}, "bob@example.com": {SubscriptionsPerSession: 7},
		})}},
		{"settings/members/4", &Settings{Domain: "example.com", Sessions: 1_000_000, GroupMembers: 300}},
		{"settings/groups/4", &Settings{Domain: "example.com", Sessions: 1_000_000, GroupsPerSession: 40, GroupsPerPrincipal: 1}},
		{"settings/groupsofsession/4", &Settings{Domain: "example.com", Sessions: 1_000_000, GroupMembers: 7, GroupsPerSession: 300}},
		{"profilesettings/full/1", &ProfileSettings{Profile: "im", Data: []byte{1, 2}}},
		{"profilesettings/empty/1", &ProfileSettings{}},
		{"nodedown/full/1", &NodeDown{Node: "n1", Incarnation: 1<<63 + 5, At: 1_772_000_000_123_456_789}},
		{"nodedown/empty/1", &NodeDown{}},
		{"raise/full/2", &Raise{Level: 3}},
		{"raise/empty/2", &Raise{}},
		{"raise/secret/4", &Raise{Level: 255, Secret: secret.Secret(strings.Repeat("0123456789abcdef", 2))}},
		{"return/full/3", &Return{Session: 300, Epoch: 1 << 40, Entries: []uint64{1, 7, 1 << 33}}},
		{"return/empty/3", &Return{}},
		{"putpolicy/full/4", &PutPolicy{Data: []byte("rules: []"), By: "ana@example.com", Base: 300}},
		{"putpolicy/empty/4", &PutPolicy{}},
		{"putpart/full/4", &PutPart{Domain: "example.com", Data: []byte("rules: []"), By: "ana@example.com", Door: "mqtt", Base: 300}},
		{"putpart/empty/4", &PutPart{}},
		{"audit/full/4", &Audit{By: "cy@example.com", Door: "http", What: "explain", About: "ana@example.com", Result: "told", Hidden: true}},
		{"audit/empty/4", &Audit{}},
		{"request/full/4", &Request{Session: 7, Epoch: 300, Queued: true, Subs: []Subscription{{Filter: "presence/example.com/bob", QoS: 1}}, Props: AppendUserProperty(nil, "evt-expires", "60")}},
		{"request/empty/4", &Request{Subs: []Subscription{}}},
		{"control/full/4", &Control{Principal: "bob@example.com", Profile: "presence", Verb: "approve", Data: []byte("{}"), At: 1_772_000_000_123_456_789}},
		{"control/empty/4", &Control{}},
		{"undelay/full/4", &Undelay{Owner: "bob@example.com", Number: 1 << 40}},
		{"undelay/empty/4", &Undelay{}},
		{"ban/full/4", &Ban{Client: "c1", User: "bob@example.com", Network: "192.0.2.0/24", Until: 1_772_000_000_123_456_789, Reason: "floods", By: "ana@example.com", Door: "http", Auto: true}},
		{"ban/empty/4", &Ban{}},
		{"unban/full/4", &Unban{Client: "c1", User: "bob@example.com", Network: "192.0.2.0/24", By: "ana@example.com", Door: "http"}},
		{"unban/empty/4", &Unban{}},
		{"kick/full/4", &Kick{Client: "c1", Drop: true, By: "ana@example.com", Door: "http"}},
		{"kick/empty/4", &Kick{}},
		{"copy/full/4", &Copy{Of: []Reference{{Owner: 300, At: 1 << 40}, {Stream: true, Owner: 7, At: 1}}}},
		{"copy/empty/4", &Copy{Of: []Reference{}}},
	}
}

func encode(v any) []byte {
	switch v := v.(type) {
	case Command:
		return v.append([]byte{})
	case *Event:
		return v.Append([]byte{})
	case *Will:
		return v.Append([]byte{})
	case *Subscription:
		return v.Append([]byte{})
	case Header:
		return AppendHeader([]byte{}, v)
	}
	panic(fmt.Sprintf("no form: %T", v))
}

// decodeLike decodes b as a value of v's type.
func decodeLike(v any, b []byte) (any, error) {
	switch v := v.(type) {
	case Command:
		c := newCommand(v.Kind())
		return c, Decode(c, b)
	case *Event:
		e := new(Event)
		return e, e.Decode(b)
	case *Will:
		w := new(Will)
		return w, w.Decode(b)
	case *Subscription:
		s := new(Subscription)
		return s, s.Decode(b)
	case Header:
		batch, err := ReadBatch(b)
		return batch.Header, err
	}
	panic(fmt.Sprintf("no form: %T", v))
}

// newCommand returns an empty command of a kind, nil if there is no such kind.
func newCommand(k Kind) Command {
	for _, c := range []Command{
		&Connect{}, &Disconnect{}, &Subscribe{}, &Unsubscribe{}, &Publish{}, &Release{}, &Settle{}, &Replay{},
		&Policy{}, &NodeUp{}, &Tick{}, &Settings{}, &PassOver{}, &ProfileSettings{}, &NodeDown{}, &Raise{}, &Return{}, &PutPolicy{}, &Copy{}, &PutPart{},
		&Request{}, &Control{}, &Audit{}, &Undelay{}, &Ban{}, &Unban{}, &Kick{},
	} {
		if c.Kind() == k {
			return c
		}
	}
	return nil
}

// same compares two values as the binary form sees them: it does not tell nil
// from empty.
func same(a, b any) bool {
	return reflect.TypeOf(a) == reflect.TypeOf(b) && bytes.Equal(encode(a), encode(b)) && fmt.Sprintf("%+v", dump(a)) == fmt.Sprintf("%+v", dump(b))
}

// dump follows the one pointer that a value may have, so that it prints.
func dump(v any) any {
	switch v := v.(type) {
	case *Publish:
		return []any{v.Epoch, v.PacketID, *v.Event}
	case *Connect:
		c := *v
		c.Will, c.Origin = nil, nil
		all := []any{c}
		if v.Will != nil {
			all = append(all, *v.Will)
		}
		if v.Origin != nil {
			all = append(all, *v.Origin)
		}
		return all
	}
	return v
}

// What was ever written reads as it was meant, and is written so still.
func TestFormsOnDisk(t *testing.T) {
	var written []golden.Form
	for _, f := range forms() {
		written = append(written, golden.Form{Name: f.name, Bytes: encode(f.value)})
	}
	stored := golden.Forms(t, "forms.txt", written)
	for _, f := range forms() {
		if got, err := decodeLike(f.value, stored[f.name]); err != nil || !same(got, f.value) {
			t.Errorf("%s reads as\n%+v, %v, want\n%+v", f.name, got, err, f.value)
		}
	}
}

// withoutPrincipals is c without bounds of one principal.
func (c Settings) withoutPrincipals() *Settings {
	for _, n := range c.OfPrincipals() {
		*n = 0
	}
	for _, n := range c.OfGroups() {
		*n = 0
	}
	c.Principals = ""
	return &c
}

// A form that is cut short anywhere, or that something follows, is damaged, and
// is never read as another value.
func TestCutFormsAreDamaged(t *testing.T) {
	for _, f := range forms() {
		if _, isHeader := f.value.(Header); isHeader {
			continue // commands follow one
		}
		b := encode(f.value)
		for n := range b {
			if s, ok := f.value.(*Settings); ok && n == len(encode(s.withoutPrincipals())) {
				continue // the form before there were bounds of one principal
			}
			if _, err := decodeLike(f.value, b[:n]); err == nil {
				t.Errorf("%s reads from its first %d of %d bytes", f.name, n, len(b))
			}
		}
		if _, err := decodeLike(f.value, append(b[:len(b):len(b)], 0)); err == nil {
			t.Errorf("%s reads with a byte more", f.name)
		}
	}
}

// A bit that has no meaning yet is refused: it is a later version's, and to
// pass over it would be to apply something else than was meant.
func TestUnknownBitsAreDamaged(t *testing.T) {
	sub := encode(&Subscription{Filter: "a", QoS: 1})
	for name, b := range map[string][]byte{
		"event flags":         append([]byte{1 << 5}, encode(&Event{})[1:]...),
		"event QoS 3":         append([]byte{3}, encode(&Event{})[1:]...),
		"subscription bit 6":  {sub[0], sub[1], sub[2] | 1<<6, sub[3]},    // and no name
		"subscription of ''":  {sub[0], sub[1], sub[2] | 1<<6, sub[3], 0}, // likewise
		"subscription bit 7":  {sub[0], sub[1], sub[2] | 1<<7, sub[3]},
		"subscription QoS 3":  {sub[0], sub[1], 3, sub[3]},
		"retain handling 3":   {sub[0], sub[1], 3 << 4, sub[3]},
		"a bool that is 2":    func() []byte { b := encode(&Replay{}); b[len(b)-9] = 2; return b }(),
		"connect bit 2":       func() []byte { b := encode(&Connect{}); b[len(b)-1] = 1 << 2; return b }(),
		"disconnect bit 3":    func() []byte { b := encode(&Disconnect{}); b[2] |= 1 << 3; return b }(),
		"a packet id of 2^16": encode(&Settle{Session: 1, Epoch: 1, Below: 1 << 16})[:3],
	} {
		var err error
		switch {
		case strings.HasPrefix(name, "event"):
			err = new(Event).Decode(b)
		case strings.HasPrefix(name, "connect"):
			err = Decode(&Connect{}, b)
		case strings.HasPrefix(name, "disconnect"):
			err = Decode(&Disconnect{}, b)
		case strings.HasPrefix(name, "a bool"):
			err = Decode(&Replay{}, b)
		case strings.HasPrefix(name, "a packet"):
			err = Decode(&Release{}, append([]byte{1, 1}, 0x80, 0x80, 0x04))
		default:
			err = new(Subscription).Decode(b)
		}
		if err == nil {
			t.Errorf("%s: read without complaint", name)
		}
	}
}

// Commands come out of a batch as they went in, and a batch that is cut short
// or damaged says so at its end.
func TestBatch(t *testing.T) {
	h := Header{Node: "n1", Incarnation: 7, Seq: 1}
	b := AppendHeader(nil, h)
	start := len(b)
	var ends []int
	var want []Command
	for _, f := range forms() {
		if c, ok := f.value.(Command); ok {
			want = append(want, c)
			b = AppendCommand(b, c)
			ends = append(ends, len(b))
		}
	}
	read := func(b []byte) (n int, err error) {
		batch, err := ReadBatch(b)
		if err != nil {
			return 0, err
		}
		if batch.Header != h {
			t.Errorf("header %+v, want %+v", batch.Header, h)
		}
		for {
			kind, body, ok := batch.Next()
			if !ok {
				return n, batch.Err()
			}
			c := newCommand(kind)
			if err := Decode(c, body); err != nil || !same(c, want[n]) {
				t.Errorf("command %d: %+v, %v, want %+v", n, c, err, want[n])
			}
			n++
		}
	}
	if n, err := read(b); n != len(want) || err != nil {
		t.Errorf("read %d commands, %v, want %d", n, err, len(want))
	}
	for cut := range b {
		n, err := read(b[:cut])
		whole := cut == start
		for i, end := range ends {
			if end <= cut && n < i+1 {
				t.Fatalf("cut at %d: read %d commands, want %d at least", cut, n, i+1)
			}
			whole = whole || end == cut
		}
		if whole != (err == nil) {
			t.Errorf("cut at %d: err %v, want one only within a command", cut, err)
		}
	}
	if _, err := ReadBatch(append([]byte{batchVersion + 1}, b[1:]...)); err == nil {
		t.Error("a batch of a later version was read")
	}
}

// Bounds of principals read as they were meant; what is cut, out of order or says nothing is
// refused.
func TestPrincipals(t *testing.T) {
	of := map[string]PrincipalBounds{"ana@example.com": {Sessions: 5, Wildcards: Unbounded}, "bob@example.com": {Subscriptions: 7, SubscriptionsPerSession: 1}}
	form := Principals(of)
	if got, err := ReadPrincipals(form); err != nil || !maps.Equal(got, of) {
		t.Errorf("got %v, %v", got, err)
	}
	first := len(Principals(map[string]PrincipalBounds{"ana@example.com": of["ana@example.com"]}))
	for n := 1; n < len(form); n++ {
		if _, err := ReadPrincipals(form[:n]); err == nil && n != first {
			t.Errorf("its first %d bytes are read", n)
		}
	}
	empty := Principals(map[string]PrincipalBounds{"eve@example.com": {}})
	for _, bad := range []string{form + "x", form[first:] + form[:first], form + form, empty, Principals(map[string]PrincipalBounds{"": {Sessions: 1}}), Principals(map[string]PrincipalBounds{"a": {Sessions: Unbounded + 1}})} {
		if got, err := ReadPrincipals(bad); err == nil {
			t.Errorf("%q is read as %v", bad, got)
		}
	}
	many := map[string]PrincipalBounds{}
	for i := range MostPrincipals + 1 {
		many[fmt.Sprint(i)] = PrincipalBounds{Sessions: 1}
	}
	if _, err := ReadPrincipals(Principals(many)); err == nil {
		t.Error("too many are read")
	}
}
