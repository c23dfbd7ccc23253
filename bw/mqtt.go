package bw

import "strings"

// ExplainHint is how a Reason String goes on that says how to learn more, but for the
// id: "no rule allows …; bellwire acl explain 7Q2MK3XD".
const ExplainHint = "bellwire acl explain "

// OfOwner says whether a refusal, by its reason, is the answer of whoever owns what was
// asked for.
func OfOwner(why string) bool {
	for _, begins := range []string{"rejected:", "probation:", "blocked-source:", "identity-required: its owner"} {
		if strings.HasPrefix(why, begins) {
			return true
		}
	}
	return false
}

// OfReason returns the code of what a reason code of MQTT 5 that refuses (0x80
// and above; 5.0 2.4) means, as far as that alone tells.
func OfReason(reason byte) Code {
	switch reason {
	case 0x86: // bad user name or password
		return BadCredentials
	case 0x87, 0x8A, 0x8C, 0x98: // not authorized, banned, bad authentication method, administrative action
		return Denied
	case 0x88, 0x89, 0x8B, 0x9C, 0x9D: // unavailable, busy, shutting down, use another server, server moved
		return Busy
	case 0x8D: // keep alive timeout
		return Lost
	case 0x8E:
		return TakenOver
	case 0x93, 0x95, 0x96, 0x97, 0x9F, 0xA0: // receive maximum, packet size, rate, quota, connections, connect time
		return Limit
	case 0x99: // payload format invalid
		return BadPayload
	}
	return Refused
}
