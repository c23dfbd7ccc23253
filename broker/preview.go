package broker

// A Previewed is a Resource whose owner may ask what somebody would be shown at some
// other instant.
type Previewed interface {
	Resource

	// Preview returns what who would be shown at the instant at if what is published
	// now were published still, and why, in the profile's own words.
	Preview(who Who, at int64) (s Shown, why any)
}

// A Foreseer is a profile that shows nothing and takes what others send, whose owners may
// ask what it would do with what somebody sends at some other instant.
type Foreseer interface {
	Profile

	// Foresee says whose a topic is, the empty string if it is spelt wrong, and what
	// becomes of what who sends there at the instant at, in the profile's own words. It
	// answers by what get returns of the profile's keys.
	Foresee(get func(key string) []byte, who Who, topicName string, at int64) (owner string, why any)
}

// A Preview is what somebody would be shown, and why.
type Preview struct {
	Shown
	Why     any  // of Previewed, or Foreseer
	Ceiling bool // the operator shows it to them, whatever the owner says; if not, Shown is as if there were nothing
}

// Preview returns what watcher would be shown of owner's resource at the instant at,
// by what is published and permitted now. It is for the owner alone, and counts as no
// watching. Errors: ErrBadEvent for a topic of no kind that can tell, a *Refusal if the
// resource is not owner's. For any goroutine.
func (b *Broker) Preview(owner string, topicName string, watcher Who, at int64) (Preview, error) {
	v := b.viewerOf(topicName)
	if v == nil {
		return b.foresee(owner, topicName, watcher, at)
	}
	if err := b.mayFetch(Who{Principal: owner}, topicName, v); err != nil {
		return Preview{}, err
	}
	if of := v.Owner(topicName); owner == "" || of != owner {
		return Preview{}, errOthers
	}
	res, ok := b.watch.resource(v, topicName).(Previewed)
	if !ok {
		return Preview{}, ErrBadEvent
	}
	var p Preview
	p.Shown, p.Why = res.Preview(watcher, at)
	if of := b.policy.Load(); of != nil {
		p.Ceiling = of.Ceiling(watcher, ActSubscribe, topicName, at).Allow
	}
	if !p.Ceiling {
		p.Shown = res.Neutral()
	}
	return p, nil
}

var errOthers = &Refusal{Reason: "what others would be shown is told to nobody but the owner"}

// foresee is Preview of what is sent, and not shown.
func (b *Broker) foresee(owner, topicName string, sender Who, at int64) (Preview, error) {
	f, ok := profileOf(b.machine.profiles, topicName).(Foreseer)
	if !ok {
		return Preview{}, ErrBadEvent
	}
	p := Preview{Shown: Shown{Absent: true}, Ceiling: true}
	var of string
	if of, p.Why = f.Foresee(func(key string) []byte { return b.profileValue(f.Prefix(), key) }, sender, topicName, at); owner == "" || of != owner {
		return Preview{}, errOthers
	}
	if policy := b.policy.Load(); policy != nil {
		p.Ceiling = policy.Ceiling(sender, ActPublish, topicName, at).Allow
	}
	return p, nil
}
