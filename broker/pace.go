package broker

import "time"

// A pacer holds back changes of resources that change too often, so that a
// source that floods does not flood all who watch it.
//
// Each resource has a bucket: a change that finds something in it is shown at
// once; one that does not is shown, as what is true then, when there is
// something again. Whoever subscribes or resumes is shown the present state in
// any case. It is the delivery loop's; the clock is the node's.
type pacer struct {
	buckets map[string]bucket
}

// A bucket is full from the instant full on, and one change less for each
// interval before that.
type bucket struct {
	full   int64
	behind bool // something changed that was not shown
}

// bucketsKept bounds the resources whose changes are counted. Beyond it those
// whose buckets are full are forgotten, and if that leaves more than half, all: looking
// through them is to make room for many, or it would be done for each change where about as
// many are not full at a time.
const bucketsKept = 1 << 16

// take says whether a change of a resource at now is shown at once; if it is
// not, when.
func (p *pacer) take(topicName string, burst int, interval time.Duration, now int64) (ok bool, at int64) {
	b := p.buckets[topicName]
	b.full = max(b.full, now)
	if !p.has(topicName, burst, interval, now) {
		b.behind = true
		p.set(topicName, b, now)
		return false, b.full - int64(burst-1)*int64(interval)
	}
	b.full += int64(interval)
	b.behind = false
	p.set(topicName, b, now)
	return true, 0
}

// has says whether a change of a resource at now would be shown at once.
func (p *pacer) has(topicName string, burst int, interval time.Duration, now int64) bool {
	return max(p.buckets[topicName].full, now)-now <= int64(burst-1)*int64(interval)
}

// late says whether a resource changed and that was not shown, and that it is
// shown now.
func (p *pacer) late(topicName string, interval time.Duration) bool {
	b, ok := p.buckets[topicName]
	if !ok || !b.behind {
		return false
	}
	b.full += int64(interval)
	b.behind = false
	p.buckets[topicName] = b
	return true
}

func (p *pacer) set(topicName string, b bucket, now int64) {
	if p.buckets == nil {
		p.buckets = map[string]bucket{}
	}
	if _, known := p.buckets[topicName]; !known && len(p.buckets) >= bucketsKept {
		for name, old := range p.buckets {
			if old.full <= now {
				delete(p.buckets, name)
			}
		}
		if len(p.buckets) > bucketsKept/2 {
			clear(p.buckets)
		}
	}
	p.buckets[topicName] = b
}
