package bridge

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// Each event goes by the first topic of the list that matches it, under the name that this
// gives it; what no topic matches goes nowhere.
func TestRoute(t *testing.T) {
	topics := []Topic{
		{Filter: "#", Direction: Both, Local: "a/", Remote: "x/y/"},
		{Filter: "+/t", Direction: Out, Remote: "far/"},
		{Filter: "one", Direction: In, Local: "here/"},
		{Filter: "#", Direction: In, Local: "sys", Remote: "$SYS/broker/"},
	}
	outs, ins := waysOf(topics, Out), waysOf(topics, In)
	for _, c := range []struct {
		ways     []way
		from, to string
	}{
		{outs, "a/b/c", "x/y/b/c"},
		{outs, "a/t", "x/y/t"}, // the first
		{outs, "b/t", "far/b/t"},
		{outs, "b/u", ""},
		{outs, "a", ""}, // matched by a/#, but it has not the prefix
		{outs, "one", ""},
		{outs, "$b/t", ""},
		{ins, "x/y/b", "a/b"},
		{ins, "one", "here/one"},
		{ins, "here/one", ""},
		{ins, "$SYS/broker/uptime", "sysuptime"},
		{ins, "$SYS/other", ""},
	} {
		if _, to := route(c.ways, c.from); to != c.to {
			t.Errorf("%s goes to %q, want %q", c.from, to, c.to)
		}
	}
	for from, to := range map[string]string{"a/r": "x/y/r", "here/one": "one", "other": "other", "b/t": "b/t"} {
		if got := back(ins, from); got != to {
			t.Errorf("what is published for %s has to go to %q there, and %q is said", from, to, got)
		}
	}
	long, deep := strings.Repeat("z", 65_534), strings.Repeat("a/", 127)+"b"
	for _, c := range []struct {
		ways []way
		name string
		in   bool
		why  string
	}{
		{outs, "a/" + deep[4:], false, ""},
		{outs, "a/" + deep[2:], false, ""}, // for the peer to say
		{outs, "a/" + long[3:], false, ""}, // 65,535 bytes there
		{outs, "a/" + long[2:], false, "too_large"},
		{ins, "one", true, ""},
		{ins, "x/y/" + deep[2:], true, ""},
		{ins, "x/y/" + deep, true, "refused"},
		{ins, "x/y/a\u0085", true, "refused"},
	} {
		_, to := route(c.ways, c.name)
		got := ""
		if why, err := unfit(to, c.in); err != nil {
			got = dropNames[why]
		}
		if to == "" || got != c.why {
			t.Errorf("%.20s of %d bytes: dropped as %q, want %q", c.name, len(c.name), got, c.why)
		}
	}
	if got := fmt.Sprint(filtersOf(ins)); got != "[{x/y/# 0} {one 0} {$SYS/broker/# 0}]" {
		t.Errorf("filters %s", got)
	}
}

// The hops of an event are counted, ours is found among them; the broker that it leaves is added. All
// else that is of the event stays in its order.
func TestCarry(t *testing.T) {
	user := func(name, value string) []byte { return appendText(appendText([]byte{propUser}, name), value) }
	props := func(all ...[]byte) []byte { return bytes.Join(all, nil) }
	id := []byte{propSubscriptionIdentifier, 5}
	format := []byte{propPayloadFormat, 1}
	for _, c := range []struct {
		name     string
		in, want []byte
		out      bool
		hops     int
		looped   bool
	}{
		{"nothing, in", nil, user(hopsProperty, "peer"), false, 0, false},
		{"nothing, out", nil, user(hopsProperty, "me"), true, 0, false},
		{"order", props(user("b", "1"), id, format, user("a", "2")), props(user("b", "1"), format, user("a", "2"), user(hopsProperty, "peer")), false, 0, false},
		{"a payload format that is none", props([]byte{propPayloadFormat, 2}, user("a", "2")), props(user("a", "2"), user(hopsProperty, "peer")), false, 0, false},
		{"been elsewhere", user(hopsProperty, "x,y"), user(hopsProperty, "x,y,me"), true, 2, false},
		{"been at the peer", user(hopsProperty, "peer"), user(hopsProperty, "peer,me"), true, 1, true},
		{"come from the peer", user(hopsProperty, "peer"), user(hopsProperty, "peer,peer"), false, 1, false},
		{"been here", user(hopsProperty, "x,me"), user(hopsProperty, "x,me,peer"), false, 2, true},
		{"said twice", props(user(hopsProperty, "x"), user(hopsProperty, "me,z")), user(hopsProperty, "x,me,z,peer"), false, 3, true},
		{"not me", user(hopsProperty, "mee,m,e"), user(hopsProperty, "mee,m,e,peer"), false, 3, false},
	} {
		got := carry(nil, c.in, nil, "me", "peer", c.out)
		if !bytes.Equal(got.props, c.want) || got.hops != c.hops || got.looped != c.looped {
			t.Errorf("%s: %q, %d hops, looped %v; want %q, %d, %v", c.name, got.props, got.hops, got.looped, c.want, c.hops, c.looped)
		}
	}
	answer := func(topic string) []byte { return appendText([]byte{propResponseTopic}, topic) }
	ins := waysOf([]Topic{{Filter: "#", Direction: In, Local: "l/", Remote: "there/"}}, In)
	for from, to := range map[string]string{
		"l/r": "there/r", "r/#": "", "": "", strings.Repeat("r/", 128): "", "l/" + strings.Repeat("r", 65_533): "",
	} {
		var want []byte
		if to != "" {
			want = answer(to)
		}
		if got := carry(nil, answer(from), ins, "me", "", false); !bytes.Equal(got.props, want) {
			t.Errorf("response topic %.20q of %d bytes: %.20q, want %q", from, len(from), got.props, want)
		}
	}
	if got := carry(nil, user(hopsProperty, strings.Repeat("x", 65_534)), nil, "me", "", true); got.hops < 1<<30 {
		t.Errorf("hops that cannot be said: %d", got.hops)
	}
}

// What a bridge reads it can write again, byte for byte, and whatever comes does no harm.
func FuzzPublish(f *testing.F) {
	f.Add(byte(0x3d), []byte("\x00\x01a\x00\x07\x05\x01\x01\x02\x00\x00payload"), byte(5))
	f.Add(byte(0x30), []byte("\x00\x03a/bx"), byte(4))
	f.Fuzz(func(t *testing.T, first byte, body []byte, version byte) {
		p, err := parsePublish(first, body, version)
		if err != nil {
			return
		}
		if got := p.append(nil, version); len(got) != p.size(version) {
			t.Errorf("%d bytes, %d are said", len(got), p.size(version))
		} else if !bytes.HasSuffix(got, p.payload) {
			t.Errorf("% x of % x", got, body)
		}
		carry(nil, p.props, waysOf([]Topic{{Filter: "#", Direction: In, Local: "long/"}}, In), "me", "", true)
		_, _ = parseAck(body, version)
		_, _ = parseConnack(body, version)
		_, _, _, _ = parseSuback(body, version)
	})
}

// Who is refused again and again for the same is told so once, and remembered once, whatever
// the peer says of it each time; another cause is told, too.
func TestCausesAreOfCodes(t *testing.T) {
	var c causes
	now := time.Unix(1_772_000_000, 0)
	for i := range 100 {
		f := &failed{kind: FailRefused, err: fmt.Errorf("the peer: %w", &refusal{0x87, fmt.Sprint("not today, ", i)})}
		if level, _ := c.level(f.cause(), now); (level == slog.LevelWarn) != (i == 0) {
			t.Errorf("try %d is told at %v", i, level)
		}
	}
	other := &failed{kind: FailRefused, err: &refusal{0x86, ""}}
	if level, _ := c.level(other.cause(), now); level != slog.LevelWarn || len(c.told) != 2 {
		t.Errorf("another code is told at %v, and %d causes are remembered", level, len(c.told))
	}
}
