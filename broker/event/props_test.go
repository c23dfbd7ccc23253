package event

import (
	"maps"
	"slices"
	"testing"
)

func TestProperties(t *testing.T) {
	props := []byte{propPayloadFormat, 1, propResponseTopic, 0, 1, 'r', propCorrelation, 0, 0}
	props = AppendContentType(props, "application/json")
	props = AppendUserProperty(props, "evt-expires", "60")
	props = AppendUserProperty(props, "", "")
	props = AppendUserProperty(props, "evt-expires", "61")
	if got := ContentType(props); got != "application/json" {
		t.Errorf("content type %q", got)
	}
	var names, values []string
	for name, value := range UserProperties(props) {
		names, values = append(names, name), append(values, value)
	}
	if !slices.Equal(names, []string{"evt-expires", "", "evt-expires"}) || !slices.Equal(values, []string{"60", "", "61"}) {
		t.Errorf("got %q = %q", names, values)
	}
	if ContentType(nil) != "" || len(maps.Collect(UserProperties(nil))) != 0 {
		t.Error("no properties have some")
	}
}

// Whatever the bytes are, reading them ends, and within them.
func FuzzProperties(f *testing.F) {
	f.Add(AppendUserProperty(AppendContentType([]byte{propPayloadFormat, 1}, "a"), "b", "c"))
	f.Add([]byte{propUser, 0, 9, 'x'})
	f.Add([]byte{propPayloadFormat})
	f.Fuzz(func(t *testing.T, props []byte) {
		ContentType(props)
		n := 0
		for name, value := range UserProperties(props) {
			n += 5 + len(name) + len(value)
		}
		if n > len(props) {
			t.Errorf("%d bytes of user properties in %d", n, len(props))
		}
	})
}
