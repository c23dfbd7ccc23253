package event

import (
	"reflect"
	"testing"
)

// Reset leaves nothing of an event but the memory of its frames, whatever fields it has.
func TestReset(t *testing.T) {
	e := Event{Topic: "t", Payload: []byte("p"), Props: []byte("q"), QoS: 2, Retain: true, At: 1, Expires: 2, Origin: 3, Client: "c", Principal: "d", Position: 4}
	for i := range e.Frames {
		e.Frames[i] = append(make([]byte, 0, 8), "frame"...)
	}
	all := reflect.ValueOf(&e).Elem()
	for i := range all.NumField() {
		if all.Field(i).IsZero() {
			t.Errorf("%s is not set here", all.Type().Field(i).Name)
		}
	}
	e.Reset()
	for i := range e.Frames {
		if len(e.Frames[i]) != 0 || cap(e.Frames[i]) < 8 {
			t.Errorf("frame %d has %d bytes and room for %d, want 0 and 8", i, len(e.Frames[i]), cap(e.Frames[i]))
		}
		e.Frames[i] = nil
	}
	if !reflect.DeepEqual(e, Event{}) {
		t.Errorf("left: %+v", e)
	}
}
