package golden

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// A judge notes what a test would have said.
type judge struct {
	testing.TB
	said []string
}

func (j *judge) Helper() {}

func (j *judge) Errorf(format string, args ...any) {
	j.said = append(j.said, strings.SplitN(fmt.Sprintf(format, args...), "\n", 2)[0])
}

// What differs from the file, is not in it, or only there, is told; what is the
// same is not.
func TestFormsBite(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("testdata/forms.txt", []byte("# head\nsame/1 0102\nother/1 0102\ngone/1 \n"), 0o644); err != nil {
		t.Fatal(err)
	}
	j := &judge{TB: t}
	stored := Forms(j, "forms.txt", []Form{{"same/1", []byte{1, 2}}, {"other/1", []byte{1, 3}}, {"new/1", nil}})
	want := []string{
		"other/1 is stored as",
		"new/1: no line in forms.txt: run with -rewrite and look at what changes",
		"gone/1 is on disks and nobody reads it any more",
	}
	if !slices.Equal(j.said, want) {
		t.Errorf("got %q, want %q", j.said, want)
	}
	if got := stored["other/1"]; !slices.Equal(got, []byte{1, 2}) {
		t.Errorf("got % x of the file", got)
	}
	j.said = nil
	File(j, "forms.txt", []byte("# head\n"))
	if len(j.said) != 1 || !strings.HasPrefix(j.said[0], "forms.txt: the bytes have changed") {
		t.Errorf("got %q", j.said)
	}
}
