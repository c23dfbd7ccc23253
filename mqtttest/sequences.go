package mqtttest

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A Sequence is one of the packet sequences of the Eclipse mosquitto project
// (its folder test/broker/data): what a client sends, and what it is to get.
type Sequence struct {
	Name    string // FILE :: GROUP NAME
	Version byte   // protocol level: 3, 4 or 5
	Connect bool   // a client connects first, and is let in
	Ends    bool   // the broker ends the connection after the last step
	Steps   []Step
}

// A Step is one thing that happens in a Sequence.
type Step struct {
	Kind    StepKind
	Bytes   []byte  // sent or expected: whole packets, legal or not
	Publish Publish // what somebody else publishes
}

// A StepKind says what happens.
type StepKind byte

// The kinds of steps.
const (
	StepSend StepKind = iota
	StepReceive
	StepPublish
)

// ReadSequences reads all files of a folder, in the order of their names.
func ReadSequences(folder string) ([]Sequence, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: no *.json files: want the folder test/broker/data of mosquitto", folder)
	}
	var all []Sequence
	for _, file := range files {
		if all, err = appendSequences(all, file); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return all, nil
}

// A sequenceGroup is what the files are lists of. What a sequence leaves open
// its group says.
type sequenceGroup struct {
	sequenceDefaults
	Group   string
	Disable bool
	Tests   []struct {
		sequenceDefaults
		Name string
		Msgs []struct {
			Type, Topic, Payload string
			QoS                  byte
			Retain               bool
		}
	}
}

type sequenceDefaults struct {
	Ver              *byte
	Connect          *bool
	ExpectDisconnect *bool `json:"expect_disconnect"`
}

func appendSequences(all []Sequence, file string) ([]Sequence, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var groups []sequenceGroup
	if err := json.Unmarshal(text, &groups); err != nil {
		return nil, err
	}
	base := strings.TrimSuffix(filepath.Base(file), ".json")
	for _, g := range groups {
		if g.Disable {
			continue
		}
		for _, x := range g.Tests {
			s := Sequence{
				Name:    base + " :: " + g.Group + " " + x.Name,
				Version: said(4, g.Ver, x.Ver),
				Connect: said(true, g.Connect, x.Connect),
				Ends:    said(true, g.ExpectDisconnect, x.ExpectDisconnect),
			}
			for _, m := range x.Msgs {
				step, err := newStep(m.Type, m.Topic, m.Payload, m.QoS, m.Retain)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", s.Name, err)
				}
				s.Steps = append(s.Steps, step)
			}
			all = append(all, s)
		}
	}
	return all, nil
}

// said returns the last of the values that are there.
func said[T any](v T, more ...*T) T {
	for _, p := range more {
		if p != nil {
			v = *p
		}
	}
	return v
}

func newStep(kind, topic, payload string, qos byte, retain bool) (s Step, err error) {
	switch kind {
	case "send":
		s.Kind = StepSend
		s.Bytes, err = sequenceBytes(payload)
	case "recv":
		s.Kind = StepReceive
		s.Bytes, err = sequenceBytes(payload)
	case "external_publish":
		s.Kind = StepPublish
		s.Publish = Publish{Topic: topic, Payload: []byte(payload), QoS: qos, Retain: retain, ID: 1}
	default:
		err = fmt.Errorf("a step of type %q", kind)
	}
	return s, err
}

// sequenceBytes reads their language, words with blanks between: hex bytes; i
// 8 bits; H, k, m, s 16 bits; L 32 bits; v, r a variable byte integer, also
// one that is too large; 'text', which ends at a quote before a blank.
func sequenceBytes(s string) (b []byte, err error) {
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		if s[0] == '\'' {
			end := strings.Index(s[1:]+" ", "' ")
			if end < 0 {
				return nil, fmt.Errorf("%s: text without end", s)
			}
			b, s = append(b, s[1:1+end]...), s[min(len(s), end+2):]
			continue
		}
		word, rest, _ := strings.Cut(s, " ")
		s = rest
		number := strings.ContainsRune("iHkmsLvr", rune(word[0]))
		if !number {
			x, err := hex.DecodeString(word)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", word, err)
			}
			b = append(b, x...)
			continue
		}
		n, err := strconv.ParseUint(word[1:], 10, 32)
		if err != nil {
			return nil, err
		}
		switch word[0] {
		case 'i':
			b = append(b, byte(n))
		case 'L':
			b = binary.BigEndian.AppendUint32(b, uint32(n))
		case 'v', 'r':
			b = appendVarint(b, uint32(n))
		default:
			b = binary.BigEndian.AppendUint16(b, uint16(n))
		}
	}
	return b, nil
}
