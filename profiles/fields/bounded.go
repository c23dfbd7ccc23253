package fields

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A Bounded is one of the numbers that settings hold: from 1 to Most, by the name that
// messages have for it.
type Bounded struct {
	Name  string
	Value *int
	Most  int
}

// AppendBounded appends numbers as they are.
func AppendBounded(b []byte, all []Bounded) []byte {
	for _, f := range all {
		b = binary.AppendUvarint(b, uint64(*f.Value))
	}
	return b
}

// ReadBounded reads what AppendBounded appended, and no more is to follow. Settings come
// from operators: what is wrong is an error, and then some of the numbers may be read.
func ReadBounded(b []byte, all []Bounded) error {
	for _, f := range all {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return fmt.Errorf("%s: cut short", f.Name)
		}
		if v < 1 || v > uint64(f.Most) {
			return fmt.Errorf("%s: %d, want 1 to %d", f.Name, v, f.Most)
		}
		*f.Value, b = int(v), b[n:]
	}
	if len(b) > 0 {
		return errors.New("something follows")
	}
	return nil
}

// InForce returns what settings say that are in force, which were checked; otherwise is
// what holds while there are none. It panics if they cannot be read.
func InForce[L any](settings []byte, otherwise L, read func([]byte) (L, error)) L {
	if settings == nil {
		return otherwise
	}
	l, err := read(settings)
	if err != nil {
		panic(fmt.Sprintf("settings in force: %v", err))
	}
	return l
}

// CheckSettings says what is wrong with settings of a kind.
func CheckSettings[L any](kindName string, settings []byte, read func([]byte) (L, error)) error {
	if _, err := read(settings); err != nil {
		return fmt.Errorf("%s: %w", kindName, err)
	}
	return nil
}
