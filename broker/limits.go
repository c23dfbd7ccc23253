package broker

import "time"

// Limits bound what one node holds. Zero of any field means its default.
type Limits struct {
	// Sessions is how many sessions may exist, connected or not. 0 means
	// 1,000,000. One more is refused with ErrQuota.
	Sessions int

	// SubscriptionsPerSession: 0 means 100,000. One more is refused with
	// ErrQuota.
	SubscriptionsPerSession int

	// RetainedTopics: 0 means 10,000,000. A publish that would retain one
	// more topic is refused with ErrQuota.
	RetainedTopics int

	// QueueEvents and QueueBytes bound the queue of one durable session: 0
	// means 100,000 and 64 MiB. Past either the oldest events that are not
	// under way are dropped, expired ones first, counted, and told at resume.
	QueueEvents int
	QueueBytes  int64

	// VolatileEvents and VolatileBytes bound what waits in memory for a
	// session that ends with its connection: 0 means 10,000 and 8 MiB. Past
	// either the connection ends with ErrSlow.
	VolatileEvents int
	VolatileBytes  int64

	// Backlog is how many bytes of commands may wait to be ordered: 0 means
	// 16 MiB. Past it publishers are not read; a quarter more is kept for what
	// frees resources: acknowledgements, disconnects, Ticks.
	Backlog int

	// SessionExpiryMax caps the session expiry that clients may ask for, in
	// seconds. 0 means no cap.
	SessionExpiryMax uint32

	// SettleEvery is how long acknowledgements of durable deliveries are
	// gathered before they are logged: 0 means 50 ms.
	SettleEvery time.Duration
}

// WithDefaults returns l with its zero fields replaced.
func (l Limits) WithDefaults() Limits {
	def(&l.Sessions, 1_000_000)
	def(&l.SubscriptionsPerSession, 100_000)
	def(&l.RetainedTopics, 10_000_000)
	def(&l.QueueEvents, 100_000)
	def(&l.QueueBytes, 64<<20)
	def(&l.VolatileEvents, 10_000)
	def(&l.VolatileBytes, 8<<20)
	def(&l.Backlog, 16<<20)
	def(&l.SettleEvery, 50*time.Millisecond)
	return l
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
