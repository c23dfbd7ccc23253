package event

import (
	"encoding/binary"
	"iter"
)

// Properties that a server forwards unaltered, by their MQTT 5 identifiers
// (5.0 2.2.2.2): what Event.Props may hold.
const (
	propPayloadFormat = 0x01
	propContentType   = 0x03
	propResponseTopic = 0x08
	propCorrelation   = 0x09
	propUser          = 0x26
)

// ContentType returns the Content Type among props, empty if there is none.
func ContentType(props []byte) string {
	for id, value := range properties(props) {
		if id == propContentType {
			return string(value)
		}
	}
	return ""
}

// UserProperties returns the User Properties among props in their order. Names
// may repeat.
func UserProperties(props []byte) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for id, value := range properties(props) {
			if id != propUser {
				continue
			}
			name, rest, _ := cutString(value)
			text, _, _ := cutString(rest)
			if !yield(string(name), string(text)) {
				return
			}
		}
	}
}

// Response returns the Response Topic among props and the Correlation Data, nil if
// there is none.
func Response(props []byte) (topic string, correlation []byte) {
	for id, value := range properties(props) {
		switch id {
		case propResponseTopic:
			topic = string(value)
		case propCorrelation:
			correlation = append([]byte{}, value...)
		}
	}
	return topic, correlation
}

// AppendResponse appends a Response Topic to props. It must be valid UTF-8 of at most
// 65,535 bytes.
func AppendResponse(props []byte, topic string) []byte {
	return appendPropString(append(props, propResponseTopic), topic)
}

// AppendCorrelation appends Correlation Data, of at most 65,535 bytes, to props.
func AppendCorrelation(props, correlation []byte) []byte {
	return appendPropString(append(props, propCorrelation), string(correlation))
}

// AppendContentType appends a Content Type to props. It must be valid UTF-8 of
// at most 65,535 bytes.
func AppendContentType(props []byte, contentType string) []byte {
	return appendPropString(append(props, propContentType), contentType)
}

// AppendUserProperty appends a User Property to props. Both must be valid UTF-8
// of at most 65,535 bytes.
func AppendUserProperty(props []byte, name, value string) []byte {
	return appendPropString(appendPropString(append(props, propUser), name), value)
}

// properties returns the identifier of each property and its value: of a User
// Property both strings with their lengths, of others the bytes. It ends where
// props is damaged, which those of an event never are.
func properties(props []byte) iter.Seq2[byte, []byte] {
	return func(yield func(byte, []byte) bool) {
		for len(props) > 0 {
			id, rest := props[0], props[1:]
			var value []byte
			ok := true
			switch id {
			case propPayloadFormat:
				if ok = len(rest) > 0; ok {
					value, rest = rest[:1], rest[1:]
				}
			case propContentType, propResponseTopic, propCorrelation:
				value, rest, ok = cutString(rest)
			case propUser:
				pair := rest
				if _, rest, ok = cutString(rest); ok {
					_, rest, ok = cutString(rest)
				}
				value = pair[:len(pair)-len(rest)]
			default:
				ok = false
			}
			if !ok || !yield(id, value) {
				return
			}
			props = rest
		}
	}
}

// cutString takes a string with its two bytes of length from b.
func cutString(b []byte) (s, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if len(b) < 2+n {
		return nil, nil, false
	}
	return b[2 : 2+n], b[2+n:], true
}

func appendPropString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}
