package watchers

import (
	"fmt"
	"slices"
	"strings"
)

// A Visibility says how a watcher is seen by whom she watches. Of two the greater
// tells less.
type Visibility uint8

const (
	Identified   Visibility = iota // by her address: who says nothing else
	Pseudonymous                   // by a pseudonym, which this owner alone knows her by
	Anonymous                      // as somebody
)

var visibilities = [...]string{Identified: "identified", Pseudonymous: "pseudonymous", Anonymous: "anonymous"}

// String is the word that documents and properties have for it.
func (v Visibility) String() string { return visibilities[v] }

// ParseVisibility reads the word that String returns.
func ParseVisibility(s string) (v Visibility, ok bool) {
	for v, word := range visibilities {
		if s == word {
			return Visibility(v), true
		}
	}
	return 0, false
}

// An Offer is how a watcher may be seen: at least one way, that which she likes best
// first.
type Offer []Visibility

// ParseOffer reads the property evt-visibility: one or more of anonymous,
// pseudonymous and identified, with commas, the most private first, so that nobody
// gives away by a slip of order what she could have kept.
func ParseOffer(s string) (Offer, error) {
	var o Offer
	for word := range strings.SplitSeq(s, ",") {
		v, ok := ParseVisibility(strings.TrimSpace(word))
		if !ok {
			return nil, fmt.Errorf("evt-visibility is %.40q: write anonymous, pseudonymous or identified, or several with commas", s)
		}
		if len(o) > 0 && o[len(o)-1] <= v {
			return nil, fmt.Errorf("evt-visibility is %.60q: write the most private first, as anonymous,pseudonymous,identified", s)
		}
		o = append(o, v)
	}
	return o, nil
}

// Has says whether v is among what is offered. An empty offer is Identified.
func (o Offer) Has(v Visibility) bool {
	return slices.Contains(o, v) || len(o) == 0 && v == Identified
}

// Agree returns how a watcher is seen who makes an offer to an owner who demands
// at least something: the first that satisfies him. ok is false if nothing does:
// then she does not watch, and he learns nothing. Nobody is ever seen as more than
// she offered. An empty offer is that of who says nothing: Identified.
func (o Offer) Agree(demand Visibility) (v Visibility, ok bool) {
	if len(o) == 0 {
		return Identified, true
	}
	for _, v := range o {
		if v <= demand {
			return v, true
		}
	}
	return 0, false
}

// String is the property that ParseOffer reads.
func (o Offer) String() string {
	words := make([]string, len(o))
	for i, v := range o {
		words[i] = v.String()
	}
	return strings.Join(words, ",")
}
