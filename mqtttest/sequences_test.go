package mqtttest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file in the language of mosquitto's sequences is read as it means.
func TestReadSequences(t *testing.T) {
	folder := t.TempDir()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, "A.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`[
	{"group": "G", "ver": 5, "tests": [
		{"name": "all", "connect": false, "expect_disconnect": false, "msgs": [
			{"type": "send", "payload": "82 r200 m1 s2 'it''s' i255 L1 v0 H258 k10 0aFF r268435456"},
			{"type": "recv", "payload": ""},
			{"type": "external_publish", "topic": "t", "qos": 1, "payload": "x", "retain": true}]},
		{"name": "its own version", "ver": 3, "msgs": []}]},
	{"group": "off", "disable": true, "tests": [{"name": "not read", "msgs": []}]}]`)
	all, err := ReadSequences(folder)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || all[0].Name != "A :: G all" || all[1].Name != "A :: G its own version" {
		t.Fatalf("got %+v", all)
	}
	if s := all[0]; s.Version != 5 || s.Connect || s.Ends || len(s.Steps) != 3 {
		t.Errorf("got %+v", s)
	}
	if s := all[1]; s.Version != 3 || !s.Connect || !s.Ends {
		t.Errorf("got %+v", s)
	}
	want := []byte("\x82\xc8\x01\x00\x01\x00\x02it''s\xff\x00\x00\x00\x01\x00\x01\x02\x00\x0a\x0a\xff\x80\x80\x80\x80\x01")
	if got := all[0].Steps[0].Bytes; !bytes.Equal(got, want) {
		t.Errorf("got % x, want % x", got, want)
	}
	if p := all[0].Steps[2].Publish; p.Topic != "t" || p.QoS != 1 || !p.Retain || string(p.Payload) != "x" {
		t.Errorf("got %+v", p)
	}
	for payload, say := range map[string]string{"zz": "invalid byte", "'open": "without end", "m1x": "invalid syntax"} {
		write(`[{"group": "G", "tests": [{"name": "bad", "msgs": [{"type": "send", "payload": "` + payload + `"}]}]}]`)
		if _, err := ReadSequences(folder); err == nil || !strings.Contains(err.Error(), say) || !strings.Contains(err.Error(), "G bad") {
			t.Errorf("%s: got %v, want %q", payload, err, say)
		}
	}
	if _, err := ReadSequences(t.TempDir()); err == nil {
		t.Error("an empty folder is no error")
	}
}
