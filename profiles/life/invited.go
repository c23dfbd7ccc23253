package life

import (
	"strings"

	"github.com/bellwire/bellwire/profiles/fields"
)

// What administrators are shown of invitations.
//
// The list of those that are outstanding has one until its time is over, or its watcher has
// declined, or subscribed so that they are seen. Who subscribes as somebody else, or as
// nobody, has their invitation listed as if they had not: to whoever reads the list, and has
// invited them, its end would be the name that they have hidden.

// listPrefix begins the keys of the list: topic, NUL, who is invited.
const listPrefix = "\x12"

func listKey(topic, watcher string) string { return listPrefix + topic + "\x00" + watcher }

// The binary form of one: version u8 = 1, until 8, by, note: texts.
const listVersion = 1

func (i *Invitation) encode() []byte {
	b := fields.AppendInt64([]byte{listVersion}, i.Until)
	return fields.AppendText(fields.AppendText(b, i.By), i.Note)
}

func readInvitation(value []byte) *Invitation {
	if value == nil {
		return nil
	}
	in := fields.Read(value, listVersion)
	i := &Invitation{Until: in.Int64(), By: in.Text(), Note: in.Text()}
	in.End()
	return i
}

// enlist sets what is listed of an invitation; nil for nothing.
func (b *Book) enlist(topic, watcher string, is *Invitation) {
	key, id := listKey(topic, watcher), wakeList+topic+"\x00"+watcher
	if was := readInvitation(b.Tx.Get(key)); was != nil && was.Until > b.Now() {
		b.Cancel(was.Until, id)
	}
	if is == nil {
		b.Set(key, nil)
		return
	}
	b.Set(key, is.encode())
	b.WakeAt(is.Until, id)
}

// unlist takes one whose time is over off the list.
func (b *Book) unlist(topic, watcher string) {
	if is := readInvitation(b.Tx.Get(listKey(topic, watcher))); is != nil && is.Until <= b.Now() {
		b.enlist(topic, watcher, nil)
	}
}

// EachInvitation calls yield with the outstanding invitations to the resources whose topics
// begin with prefix, in the order of topics and watchers, until it returns false. each is as
// Tx.Each.
func EachInvitation(each func(prefix, after string, yield func(key string, value []byte) bool), prefix string, yield func(topic, watcher string, i *Invitation) bool) {
	each(listPrefix+prefix, "", func(key string, value []byte) bool {
		topic, watcher, _ := strings.Cut(key[len(listPrefix):], "\x00")
		return yield(topic, watcher, readInvitation(value))
	})
}

// InvitationTo returns the outstanding invitation of a watcher to a resource, by what get
// returns of the profile's keys; nil for none.
func InvitationTo(get func(key string) []byte, topic, watcher string) *Invitation {
	return readInvitation(get(listKey(topic, watcher)))
}
