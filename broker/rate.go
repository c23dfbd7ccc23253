package broker

import "strings"

// How often a watcher is shown a resource at most.
//
// An owner may say how long it is at least from one notification to the next (Shown.Every).
// What comes sooner is not kept: when the time has come the watcher is shown how things are
// then, if that is news to it. So the last state is always shown, and never later than it
// may be. Two things do not wait. What shows that there is nothing: that a window closes must
// be seen at once, and it must look as if the owner had gone. And what another grant shows:
// what the policy takes or gives holds from its instant on.
//
// There is one timer for each resource, as for what time changes, and at it all watchers
// are looked at whose time has come: so that there are few of them, however many watch and
// whenever each was shown something last, the times are put off to a multiple of an eighth of
// the interval.

// A rating is when a session was last sent something that it is not to be sent often, and
// by what grant.
type rating struct {
	at    int64
	grant [16]byte
}

// mayNext returns when s may be sent what is shown of a resource, 0 for now. had says that it
// was sent something else before. Requires shownMu.
func (s *Session) mayNext(topicName string, shown *Shown, had bool, now int64) int64 {
	last, rated := s.rated[topicName]
	if shown.Every == 0 || !had || !rated || shown.Nothing || last.grant != shown.Grant || now >= last.at+shown.Every {
		return 0
	}
	step := max(shown.Every/8, 1)
	return (last.at + shown.Every + step - 1) / step * step
}

// noteRated notes that s was sent what is shown of a resource. Requires shownMu.
func (s *Session) noteRated(topicName string, shown *Shown, now int64) {
	if shown.Every == 0 {
		delete(s.rated, topicName)
		return
	}
	if s.rated == nil {
		s.rated = map[string]rating{}
	}
	s.rated[topicName] = rating{now, shown.Grant}
}

// ratedBucket is the name under which is noted when a resource is shown to whom it was too
// soon for.
func ratedBucket(topicName string) string { return ratedPrefix + topicName }

// readRated is the reverse of ratedBucket; ok is false of another name.
func readRated(bucket string) (topicName string, ok bool) {
	return strings.CutPrefix(bucket, ratedPrefix)
}
