package broker

import (
	"maps"
	"slices"

	"github.com/bellwire/bellwire/broker/event"
)

// Subscriptions whose filters were rewritten.
//
// What a client names is rewritten as it comes, by the policy in force then, and policies
// change. Who unsubscribes means what they have subscribed to, whatever their name for it
// stands for by now: so a subscription keeps the name that it was made by, with the session,
// and UNSUBSCRIBE ends
//
//   - what the name stands for now,
//   - what was subscribed to by that name, whatever it stood for then, and
//   - what is called so itself: it was made before there was a rule.
//
// Another way would be to rewrite the subscriptions that there are with the policy. But then
// what waits in queues would be of filters that are no more, and a rule that is taken back
// would not bring back what it has changed.

// longestNamed is the longest name that is kept, in bytes: as much as a filter may take on
// average. Of what has a longer one the client has to know what it has become.
const longestNamed = bytesPerFilter

// renames takes note that a subscription has a name. In the delivery loop.
func (s *Session) renames(sub *event.Subscription) {
	if sub.Named != "" {
		s.renamed.Store(true)
	}
}

// UnsubscribeNamed is Unsubscribe by what a client has named, which the policy rewrites to
// filters now: it ends what each name has stood for, and says which of them had ended
// anything; with an error, of those at the front of which all has ended.
func (s *Session) UnsubscribeNamed(filters, named []string) (existed []bool, err error) {
	all, of := filters, []int(nil)
	if s.renamed.Load() || !slices.Equal(filters, named) {
		if all, of, err = s.meant(filters, named); err != nil {
			return nil, err
		}
	}
	ended, err := s.Unsubscribe(all)
	existed = slices.Clone(ended[:min(len(ended), len(filters))])
	var behind []bool // what else the names have stood for
	if len(ended) > len(filters) {
		behind = ended[len(filters):]
	}
	for k, was := range behind {
		existed[of[k]] = existed[of[k]] || was
	}
	if len(behind) < len(of) { // there was an error
		existed = existed[:min(len(existed), of[len(behind)])]
	}
	return existed, err
}

// meant returns filters and, behind them, what else their names have stood for; of says of
// each of these whose name it is.
func (s *Session) meant(filters, named []string) (all []string, of []int, err error) {
	all = slices.Clone(filters)
	if !s.b.loop.call(func(*Wave) {
		by := map[string][]string{}
		for _, filter := range slices.Sorted(maps.Keys(s.subs)) {
			if name := s.subs[filter].sub.Named; name != "" {
				by[name] = append(by[name], filter)
			}
		}
		for i, name := range named {
			also := by[name]
			if s.subs[name] != nil {
				also = append(also, name)
			}
			for _, filter := range also {
				if filter != filters[i] {
					all, of = append(all, filter), append(of, i)
				}
			}
		}
	}) {
		return nil, nil, ErrClosing
	}
	return all, of, nil
}
