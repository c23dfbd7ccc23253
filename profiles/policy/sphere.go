package policy

import "github.com/bellwire/bellwire/profiles/kind"

// AsksSphere says whether Input.Sphere can have an effect on what Evaluate says
// of the watcher w. Where it has none, nobody need find out what the sphere is.
func (p *Policy) AsksSphere(w kind.Addr, in Input) bool {
	for i := range p.rules {
		if c := &p.rules[i].if_; c.sphere != nil && c.concerns(w, in) {
			return true
		}
	}
	for i := range p.limits {
		if l := &p.limits[i]; l.only.sphere != nil && l.who.concerns(w, in) {
			return true
		}
	}
	return false
}
