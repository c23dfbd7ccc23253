package inbox

import (
	"encoding/hex"
	"reflect"
	"testing"

	"github.com/bellwire/bellwire/profiles/im"
	"github.com/bellwire/bellwire/profiles/kind"
)

// The record of an inbox reads as it was written, also by a version that knew of
// no devices that are being given what is kept.
func TestBoxOnDisk(t *testing.T) {
	want := box{wake: 1 << 60, iseq: 300, firstID: 1, nextID: 301, kept: []kept{{iseq: 7, size: 200, expires: 1 << 60}, {iseq: 300, size: 1, expires: 1<<60 + 1}}}
	const first = "01" + "1000000000000000" + "ac02" + "01" + "ad02" + "02" + "07" + "c801" + "1000000000000000" + "ac02" + "01" + "1000000000000001"
	const second = "02" + "1000000000000000" + "ac02" + "01" + "ad02" + "03" + "02" + "07" + "c801" + "09" + "1000000000000000" + "ac02" + "01" + "00" + "1000000000000001"
	read := func(text string) *box {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return readBox(b)
	}
	if got := read(first); !reflect.DeepEqual(*got, want) {
		t.Errorf("version 1 reads as %+v, want %+v", *got, want)
	}
	want.copies, want.kept[0].taken = 3, 9
	if got := read(second); !reflect.DeepEqual(*got, want) {
		t.Errorf("version 2 reads as %+v, want %+v", *got, want)
	}
	if got := hex.EncodeToString(want.encode()); got != second {
		t.Errorf("written as %s, want %s", got, second)
	}
}

// What is remembered of a message lies where it lay before there were forwards, and what
// was not sent to the inbox's owner beside it.
func TestIDKeys(t *testing.T) {
	of := func(to string) string {
		return New(im.New(), Limits{}).idOf(&kind.Message{ID: "7f3a", From: kind.Of(alice), To: kind.Of(to)}, kind.Of(bob))
	}
	const first = "\x02iim/example.com/bob\x00alice@example.net\x007f3a"
	for to, want := range map[string]string{bob: first, "rob@example.com": first + "\x00rob@example.com"} {
		if got := of(to); got != want {
			t.Errorf("to %s: %q, want %q", to, got, want)
		}
	}
}
