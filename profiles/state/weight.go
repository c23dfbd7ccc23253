package state

import (
	"fmt"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/profiles/kind"
)

// versionAt returns the version of records that are written at a level.
func versionAt(l broker.Level) byte {
	if l < broker.LevelWeights {
		return recordVersion
	}
	return recordWeighted
}

// weigh returns what the publication weighs that a request has made, in the place of old
// in rec, or refuses it: each change of one source has all of them read and composed
// again, on every node that shows them to somebody. One that was over the bound before
// there was any may become less. Below LevelWeights nothing weighs anything.
func (p *Profile) weigh(tx *broker.ProfileTx, rec *record, old *publication, after *kind.Publication, r request) (int, error) {
	if tx.Level() < broker.LevelWeights {
		return 0, nil
	}
	others, had := 0, 0
	for i := range rec.pubs {
		q := &rec.pubs[i]
		if q.weight == 0 { // it was stored before there were weights
			q.weight = p.weightOf(r.topic.Resource, q.Doc, nil)
		}
		switch {
		case !q.Lost.IsZero(): // it counts no more
		case q == old:
			had = q.weight
		default:
			others += q.weight
		}
	}
	own := 0
	switch {
	case r.update.Doc != nil:
		own = p.weightOf(r.topic.Resource, after.Doc, after.Value)
	case had > 0:
		return had, nil // it is refreshed
	default:
		own = old.weight // it was lost, and is there again
	}
	if all := others + own; all > MaxWeight && own >= had {
		return 0, &broker.Refusal{Cause: broker.ErrQuota, Reason: fmt.Sprintf(
			"quota: all sources together would have %d units, %d of them this one: at most %d are composed (2 for a source and for an element, 1 for an attribute, a note and half a KiB): publish fewer elements, or remove a source",
			all, own, MaxWeight)}
	}
	return own, nil
}

// weightOf returns what a document weighs, at least its octets if it cannot be read:
// then nothing is composed of it, either.
func (p *Profile) weightOf(r kind.Resource, doc kind.Document, value any) int {
	if value == nil {
		var err error
		if value, err = p.kind.Parse(r, doc); err != nil {
			return kind.BaseWeight(doc)
		}
	}
	return max(p.kind.Weight(doc, value), 1)
}
