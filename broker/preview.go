package broker

// A Previewed is a Resource whose owner may ask what somebody would be shown at some
// other instant.
type Previewed interface {
	Resource

	// Preview returns what who would be shown at the instant at if what is published
	// now were published still, and why, in the profile's own words.
	Preview(who Who, at int64) (s Shown, why any)
}

// A Preview is what somebody would be shown, and why.
type Preview struct {
	Shown
	Why     any  // of Previewed
	Ceiling bool // the operator shows it to them, whatever the owner says; if not, Shown is as if there were nothing
}

// Preview returns what watcher would be shown of owner's resource at the instant at,
// by what is published and permitted now. It is for the owner alone, and counts as no
// watching. Errors: ErrBadEvent for a topic of no kind that can tell, a *Refusal if the
// resource is not owner's. For any goroutine.
func (b *Broker) Preview(owner string, topicName string, watcher Who, at int64) (Preview, error) {
	v := b.viewerOf(topicName)
	if v == nil {
		return Preview{}, ErrBadEvent
	}
	if err := b.mayFetch(Who{Principal: owner}, topicName, v); err != nil {
		return Preview{}, err
	}
	if of := v.Owner(topicName); owner == "" || of != owner {
		return Preview{}, &Refusal{Reason: "what others would be shown is told to nobody but the owner"}
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
