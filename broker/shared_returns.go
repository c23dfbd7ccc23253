package broker

import "encoding/binary"

// Returns say how often in a row a copy was not sent by the member that it was given
// to. The log permits it by its own time and its node does not by the node's: so at a
// window's edge, if that node's clock is ahead, members could return a copy to each
// other without end, and each time were an entry of the log. The first return gives it
// to another at once; who returns it again within askAgain has it wait that long. So a
// copy takes two entries in that time, however many members there are and however far
// the clocks are apart.
type returns struct {
	times uint64
	last  int64 // in the log's time
}

// add notes one more.
func (r *returns) add(now int64) {
	if now-r.last >= askAgain {
		r.times = 0
	}
	r.times++
	r.last = now
}

// rest returns until when the copy is given to nobody, 0 if it may be.
func (r *returns) rest(now int64) (until int64) {
	if until = r.last + askAgain; r.times < 2 || now >= until {
		return 0
	}
	return until
}

// append appends r as stored: how often, and if that is not never the last time.
func (r *returns) append(b []byte) []byte {
	b = binary.AppendUvarint(b, r.times)
	if r.times > 0 {
		b = binary.AppendUvarint(b, uint64(r.last))
	}
	return b
}

func (r *returns) decode(u *uvarints) (ok bool) {
	if r.times = u.take(); r.times > 0 {
		r.last = int64(u.take())
	}
	return !u.short
}
