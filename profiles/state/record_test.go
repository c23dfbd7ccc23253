package state

import (
	"reflect"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/golden"
	"github.com/bellwire/bellwire/profiles/kind"
)

// What was ever stored of a resource reads as it was meant, and each version is written
// so still, for it is, at the levels that have it.
func TestRecordOnDisk(t *testing.T) {
	at := time.Date(2026, 3, 9, 12, 0, 0, 5, time.UTC)
	full := func(weight int) *record {
		return &record{wake: at.UnixNano(), pubs: []publication{
			{Publication: kind.Publication{
				Source: "pc", Publisher: kind.Of("bob@example.com"), ETag: "1s", Published: at, Expires: at.Add(time.Hour), Lost: at.Add(time.Minute),
				Bound: kind.Connection{Client: "c1", Epoch: 300}, Doc: kind.Document{ContentType: "application/evt-presence+json", Body: []byte(`{"basic":"open"}`)},
			}, life: time.Hour, weight: weight},
			{Publication: kind.Publication{Source: "phone", Publisher: kind.Of("ann@example.net"), Doc: kind.Document{Body: []byte{}}}},
		}}
	}
	forms := []struct {
		name    string
		version byte
		of      *record
	}{
		{"record/full/1", recordVersion, full(0)},
		{"record/empty/1", recordVersion, &record{}},
		{"record/weighed/4", recordWeighted, full(300)},
		{"record/unweighed/4", recordWeighted, &record{}},
	}
	var written []golden.Form
	for _, f := range forms {
		written = append(written, golden.Form{Name: f.name, Bytes: f.of.encode(f.version)})
	}
	stored := golden.Forms(t, "records.txt", written)
	for _, f := range forms {
		if got := readRecord(stored[f.name]); !reflect.DeepEqual(got, f.of) {
			t.Errorf("%s reads as\n%+v, want\n%+v", f.name, got, f.of)
		}
	}
}
