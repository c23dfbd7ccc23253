package broker

import "time"

// watchDisk looks at the free space once a second, and after each checkDiskEvery bytes that
// were ordered: a second is long enough to write past the low-water mark.
func (b *Broker) watchDisk() {
	if b.config.Free == nil {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var c scarcity
	for {
		free, mark := b.lookAtDisk()
		select {
		case <-b.closing:
			return
		case <-tick.C:
			if c.mayGo(free, mark) && b.config.MakeRoom != nil {
				b.config.MakeRoom()
			}
		case <-b.look:
		}
	}
}

// checkDiskEvery is after how many bytes of commands the free space is looked at again.
const checkDiskEvery = 4 << 20

// roomEvery is after how many seconds room is made on a disk that stays nearly full.
// Who has fetched what had filled it has written little by that: of itself that would stay
// in memory, and all that it deletes on the disk.
const roomEvery = 5

// A scarcity is how little a disk has free, from second to second. Room is made by writing first
// what memtables hold. That is reckoned with as long as nobody else takes it meanwhile; a write that
// finds no room ends the process, so nothing is written on a disk that somebody is filling.
type scarcity struct {
	before uint64 // free bytes a second ago
	steady int    // for so many seconds there were few, and hardly fewer from one to the next
}

// mayGo says, each second, whether room is to be made, by the bytes that are free and the
// low-water mark.
func (c *scarcity) mayGo(free, mark uint64) bool {
	taken := free+mark/8 < c.before
	c.before = free
	if c.steady++; taken || free == 0 || free >= mark {
		c.steady = 0
	}
	if c.steady < roomEvery {
		return false
	}
	c.steady = 0
	return true
}

// CheckDisk looks at the free space now.
func (b *Broker) CheckDisk() { b.lookAtDisk() }

// lookAtDisk is CheckDisk, and says what is free beyond what memtables hold, and the mark.
func (b *Broker) lookAtDisk() (free, mark uint64) {
	if b.config.Free == nil {
		return 0, 0
	}
	free, total := b.config.Free()
	if mark = b.config.LowWater; mark == 0 {
		mark = min(total/20, 512<<20)
	}
	full := free < mark
	if b.diskFull.Swap(full) != full {
		if full {
			b.logger.Warn("disk nearly full: durable publishes are refused", "free", free, "mark", mark)
		} else {
			b.logger.Info("disk has room again: durable publishes are accepted", "free", free, "mark", mark)
		}
	}
	return free, mark
}
