package life

// EachBelow calls yield with the entries of all resources whose topics begin with prefix, in
// the order of topics and watchers, until it returns false. each is as Tx.Each.
func EachBelow(each func(prefix, after string, yield func(key string, value []byte) bool), prefix string, yield func(e *Entry) bool) {
	each(entryPrefix+prefix, "", func(key string, value []byte) bool { return yield(ReadEntry(key, value)) })
}

// EachBy calls yield with the topics of all resources to which a watcher has an entry, in
// order, until it returns false.
func EachBy(each func(prefix, after string, yield func(key string, value []byte) bool), watcher string, yield func(topic string) bool) {
	prefix := KeysBy(watcher)
	each(prefix, "", func(key string, _ []byte) bool { return yield(key[len(prefix):]) })
}

// EachWide calls yield with the subscriptions by wildcards whose patterns are about a domain
// by its name, or, if it is empty, about all domains; in the order of patterns and watchers,
// until it returns false.
func EachWide(each func(prefix, after string, yield func(key string, value []byte) bool), domain string, yield func(w *Wide) bool) {
	if domain == "" {
		domain = anyLevel
	}
	each(widePrefix+domain+"/", "", func(key string, value []byte) bool { return yield(ReadWide(key, value)) })
}

// EachOfPattern calls yield with those of a pattern, in the order of watchers, until it
// returns false.
func EachOfPattern(each func(prefix, after string, yield func(key string, value []byte) bool), pattern string, yield func(w *Wide) bool) {
	each(WideKeys(pattern), "", func(key string, value []byte) bool { return yield(ReadWide(key, value)) })
}

// EachWideBy calls yield with those of a watcher, in the order of patterns, until it returns
// false.
func EachWideBy(get func(key string) []byte, each func(prefix, after string, yield func(key string, value []byte) bool), watcher string, yield func(w *Wide) bool) {
	prefix := WideBy(watcher)
	each(prefix, "", func(key string, _ []byte) bool {
		w := WideOf(get, key[len(prefix):], watcher)
		return w == nil || yield(w)
	})
}

// EntryTo returns what the entry of a subscription by name would be to a resource of those
// that the subscription is about; nil if its watcher watches that by name. get returns what
// the profile's keys hold.
func (w *Wide) EntryTo(get func(key string) []byte, topic string) *Entry {
	e := &Entry{Topic: topic, Watcher: w.Watcher, ID: w.IDFor(topic), Status: Active, Event: Subscribe, Since: w.Asked, Asked: w.Asked}
	if past := EntryOf(get, topic, w.Watcher); past != nil {
		if past.Live() {
			return nil
		}
		e.As = past.As
	}
	if value := get(cutKey(topic, w.Watcher)); value != nil {
		c := ReadCut(cutKey(topic, w.Watcher), value)
		e.Status, e.Event, e.Since = Terminated, c.Event, c.At
	}
	return e
}
