package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// A document is what a row with permissions publishes: presence as a person's
// client would write it. The stamp is text within its note, for a broker that
// understands documents may write them anew, and then to each watcher as much
// of one as its owner lets him see.
const (
	noteMark     = "bench " // begins the note; the stamp follows
	documentHead = `{"basic":"open","notes":{"en":"` + noteMark
	documentTail = `"}}`
)

// documentTemplate makes the template of a document of that many bytes.
func documentTemplate(version byte, topic string, qos byte, retain bool, size int) template {
	note := padding(max(size-len(documentHead)-len(documentTail), textStampSize))
	stamp{}.putText(note)
	t := templateOf(version, topic, qos, retain, []byte(documentHead+string(note)+documentTail))
	t.stampAt += len(documentHead)
	t.text = true
	return t
}

// saysNothing says whether a document is one that keeps a state back: nobody
// wrote it.
func saysNothing(document []byte) bool { return !bytes.Contains(document, []byte(noteMark)) }

// stampIn finds the stamp in a document.
func stampIn(document []byte) (st stamp, at int, ok bool) {
	if at = bytes.Index(document, []byte(noteMark)); at < 0 {
		return st, 0, false
	}
	at += len(noteMark)
	st, ok = readTextStamp(document[at:])
	return st, at, ok
}

// shows says whether a document whose stamp is at that place shows what src
// published. The first is understood; all others must be like it, but for the
// stamp: what a watcher may see of src does not change, nor do the names that
// the broker gives to its parts.
func (src *source) shows(document []byte, at int) bool {
	if src.first == nil {
		if !src.wrote(document, at) {
			return false
		}
		src.first, src.firstAt = bytes.Clone(document), at
	}
	return at == src.firstAt && string(document[:at]) == string(src.first[:at]) &&
		string(document[at+textStampSize:]) == string(src.first[at+textStampSize:])
}

// wrote understands a document.
func (src *source) wrote(document []byte, at int) bool {
	var got, sent struct {
		Entity string
		Basic  string
		Notes  map[string]string
	}
	unstamped := bytes.Clone(document)
	stamp{}.putText(unstamped[at:])
	if json.Unmarshal(unstamped, &got) != nil || json.Unmarshal(src.message.payload(), &sent) != nil {
		return false
	}
	of := got.Entity == "" || got.Entity == "pres:"+src.from.user
	return of && got.Basic == sent.Basic && len(got.Notes) == 1 && got.Notes["en"] == sent.Notes["en"]
}

// introduce sets up a row with permissions: everybody signs in, says who may see
// what and how things are, and only then do they subscribe. So each
// subscription begins with a state, which is the first message of its source:
// the ledger wants it, and it is no part of the load.
func (ld *load) introduce() error {
	filters := make([][]string, len(ld.subs))
	for i, c := range ld.subs {
		filters[i], c.filters = c.filters, nil
	}
	if err := ld.open(ld.subs, ld.Setup); err != nil {
		return err
	}
	if err := ld.publishStates(); err != nil {
		return err
	}
	if err := ld.subscribeAll(filters); err != nil {
		return err
	}
	return ld.drain()
}

// subscribeAll subscribes those who are connected, as few at once as open does.
func (ld *load) subscribeAll(filters [][]string) error {
	began, done := 0, 0
	err := ld.await(ld.Setup, func() (bool, error) {
		done = readyOf(ld.subs[:began])
		for began < len(ld.subs) && began-done < openAtOnce {
			c := ld.subs[began]
			c.filters, c.ready = filters[began], false
			if err := ld.subscribe(c); err != nil {
				return false, err
			}
			began++
		}
		return done == len(ld.subs), nil
	})
	if err != nil {
		return fmt.Errorf("%d of %d clients have their subscriptions: %w", done, len(ld.subs), err)
	}
	return nil
}

// publishStates publishes at QoS 1, so that everything is in force when the
// last is acknowledged.
func (ld *load) publishStates() error {
	load := ld.handle
	defer func() { ld.handle = load }()
	open := 0
	ld.handle = func(c *conn, first byte, body []byte) error {
		id, reason, err := parseAck(body)
		if err != nil || first&0xF0 != typePuback || reason >= 0x80 || !c.pub.ids.put(id) {
			return fmt.Errorf("%w: packet type %d, reason 0x%02x, to somebody's policy or state", errFrame, first>>4, reason)
		}
		open--
		return nil
	}
	policy := templateOf(ld.Version, "$me/policy/presence", 1, false, ownersPolicy(people(ld.Scenario)))
	for _, src := range ld.sources {
		c := src.from
		if ld.Policies {
			c.out = policy.appendUnstamped(c.out, c.pub.ids.take())
			open++
		}
		state := documentTemplate(ld.Version, src.topic, 1, ld.Scenario.Retain, ld.Scenario.Payload)
		c.out = state.append(c.out, c.pub.ids.take(), stamp{at: ld.now(), seq: src.seq, source: src.number})
		src.seq++
		open++
		ld.touch(c)
	}
	if err := ld.await(ld.Setup, func() (bool, error) { return open == 0, nil }); err != nil {
		return fmt.Errorf("%d policies and states are not acknowledged: %w", open, err)
	}
	return nil
}
