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
