// Package authn finds out who somebody is by other proofs than a password: by
// SCRAM-SHA-256, by signed tokens (JWT), by certificates. What may be proved, and by
// whom, the policy says (package acl); what is found out is a principal, or a Refusal.
//
// Nothing here is state, nor asked when commands are applied: each node judges whoever
// comes to it, by its own clock, which is handed in.
package authn

import "fmt"

// A Refusal is why somebody was not let in. It is for the operator: whoever was refused
// is told nothing but that.
type Refusal struct {
	Reason string // one of a few, in snake case, to count by
	Detail string // for the log; it may have a few words of what was sent, never a secret
}

func (r *Refusal) Error() string {
	if r.Detail == "" {
		return r.Reason
	}
	return r.Reason + ": " + r.Detail
}

// LoginReason is Reason.
func (r *Refusal) LoginReason() string { return r.Reason }

func refuse(reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}
