package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/eclipse/paho.golang/paho"
)

// A formatter appends what is printed for one message to b.
type formatter func(b *bytes.Buffer, m *paho.Publish, at time.Time) error

// plainFormat is the payload as it is, after "topic " if verbose.
func plainFormat(verbose bool) formatter {
	return func(b *bytes.Buffer, m *paho.Publish, _ time.Time) error {
		if !verbose {
			b.Write(m.Payload)
			return nil
		}
		b.WriteString(m.Topic)
		b.WriteByte(' ')
		if len(m.Payload) == 0 {
			b.WriteString("(null)") // so does mosquitto_sub
		}
		b.Write(m.Payload)
		return nil
	}
}

// parseFormat reads mosquitto_sub's -F: % for what the message says, @ for
// what strftime says of the time of its arrival, \ for characters.
func parseFormat(format string, pretty bool) (formatter, error) {
	var parts []formatter
	literal := func(s string) {
		parts = append(parts, func(b *bytes.Buffer, _ *paho.Publish, _ time.Time) error {
			b.WriteString(s)
			return nil
		})
	}
	for i := 0; i < len(format); i++ {
		c := format[i]
		if c != '%' && c != '@' && c != '\\' {
			end := i
			for end < len(format) && !strings.ContainsRune(`%@\`, rune(format[end])) {
				end++
			}
			literal(format[i:end])
			i = end - 1
			continue
		}
		if i++; i == len(format) {
			return nil, fmt.Errorf("it ends in the middle of a sequence: %c", c)
		}
		switch c {
		case '\\':
			s, ok := escapes[format[i]]
			if !ok {
				return nil, fmt.Errorf(`unknown escape \%c`, format[i])
			}
			literal(s)
		case '@':
			part, err := timePart(format[i])
			if err != nil {
				return nil, err
			}
			parts = append(parts, part)
		case '%':
			field, n := parseField(format[i:])
			if i += n; i == len(format) {
				return nil, fmt.Errorf("it ends in the middle of a sequence: %%%s", format[i-n:])
			}
			part, err := messagePart(format[i], field, pretty)
			if err != nil {
				return nil, err
			}
			parts = append(parts, part)
		}
	}
	return func(b *bytes.Buffer, m *paho.Publish, at time.Time) error {
		for _, part := range parts {
			if err := part(b, m, at); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

var escapes = map[byte]string{
	'\\': `\`, '0': "\x00", 'a': "\a", 'e': "\x1b", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v",
}

func timePart(c byte) (formatter, error) {
	switch c {
	case '@':
		return func(b *bytes.Buffer, _ *paho.Publish, _ time.Time) error { return b.WriteByte('@') }, nil
	case 'N':
		return func(b *bytes.Buffer, _ *paho.Publish, at time.Time) error {
			fmt.Fprintf(b, "%09d", at.Nanosecond())
			return nil
		}, nil
	}
	if _, ok := strftime(time.Time{}, c); !ok {
		return nil, fmt.Errorf("unknown time sequence @%c", c)
	}
	return func(b *bytes.Buffer, _ *paho.Publish, at time.Time) error {
		text, _ := strftime(at, c)
		b.WriteString(text)
		return nil
	}, nil
}

// A field is the form a value is printed in: %-10.3t.
type field struct {
	left, zero bool
	width      int // least number of characters; 0: as many as there are
	limit      int // most; -1: all
}

// parseField reads what stands between % and the letter, and how much it is.
func parseField(s string) (field, int) {
	f, i := field{limit: -1}, 0
	for ; i < len(s) && (s[i] == '-' || s[i] == '0'); i++ {
		f.left, f.zero = f.left || s[i] == '-', f.zero || s[i] == '0'
	}
	number := func() int {
		n := 0
		for ; i < len(s) && '0' <= s[i] && s[i] <= '9'; i++ {
			n = min(n*10+int(s[i]-'0'), 10_000)
		}
		return n
	}
	f.width = number()
	if i < len(s) && s[i] == '.' {
		i++
		f.limit = number()
	}
	return f, i
}

// pad appends s in the form of f. Only numbers are padded with zeros.
func (f field) pad(b *bytes.Buffer, s string, number bool) {
	if f.limit >= 0 && !number && f.limit < len(s) {
		s = s[:f.limit]
	}
	fill := " "
	if f.zero && number && !f.left {
		fill = "0"
	}
	missing := strings.Repeat(fill, max(0, f.width-len(s)))
	if f.left {
		b.WriteString(s + missing)
	} else {
		b.WriteString(missing + s)
	}
}

// messagePart returns the formatter of one % sequence.
func messagePart(c byte, f field, pretty bool) (formatter, error) {
	text := func(get func(*paho.Publish) string) (formatter, error) {
		return func(b *bytes.Buffer, m *paho.Publish, _ time.Time) error {
			f.pad(b, get(m), false)
			return nil
		}, nil
	}
	number := func(get func(*paho.Publish) string) (formatter, error) {
		return func(b *bytes.Buffer, m *paho.Publish, _ time.Time) error {
			if s := get(m); s != "" || f.width > 0 {
				f.pad(b, s, s != "")
			}
			return nil
		}, nil
	}
	bare := func(get func(*paho.Publish) string) (formatter, error) {
		f = field{limit: -1}
		return text(get)
	}
	switch c {
	case '%':
		return bare(func(*paho.Publish) string { return "%" })
	case 't':
		return text(func(m *paho.Publish) string { return m.Topic })
	case 'p':
		return text(func(m *paho.Publish) string { return string(m.Payload) })
	case 'x', 'X':
		verb := "%" + string(c)
		return number(func(m *paho.Publish) string { return fmt.Sprintf(verb, m.Payload) })
	case 'l':
		return number(func(m *paho.Publish) string { return strconv.Itoa(len(m.Payload)) })
	case 'm':
		return number(func(m *paho.Publish) string { return strconv.Itoa(int(m.PacketID)) })
	case 'q':
		return bare(func(m *paho.Publish) string { return strconv.Itoa(int(m.QoS)) })
	case 'r':
		return bare(func(m *paho.Publish) string { return strconv.Itoa(bit(m.Retain)) })
	case 'A':
		return number(func(m *paho.Publish) string { return digits(m.Properties.TopicAlias) })
	case 'E':
		return number(func(m *paho.Publish) string { return digits(m.Properties.MessageExpiry) })
	case 'F':
		return number(func(m *paho.Publish) string { return digits(m.Properties.PayloadFormat) })
	case 'S':
		return number(func(m *paho.Publish) string { return digits(m.Properties.SubscriptionIdentifier) })
	case 'C':
		return text(func(m *paho.Publish) string { return m.Properties.ContentType })
	case 'R':
		return text(func(m *paho.Publish) string { return m.Properties.ResponseTopic })
	case 'D':
		return bare(func(m *paho.Publish) string { return string(m.Properties.CorrelationData) })
	case 'P':
		return bare(func(m *paho.Publish) string {
			var pairs []string
			for _, u := range m.Properties.User {
				pairs = append(pairs, u.Key+":"+u.Value)
			}
			return strings.Join(pairs, " ")
		})
	case 'I':
		return func(b *bytes.Buffer, _ *paho.Publish, at time.Time) error {
			f.pad(b, at.Format("2006-01-02T15:04:05-0700"), false)
			return nil
		}, nil
	case 'U':
		return func(b *bytes.Buffer, _ *paho.Publish, at time.Time) error {
			fmt.Fprintf(b, "%d.%09d", at.Unix(), at.Nanosecond())
			return nil
		}, nil
	case 'j', 'J':
		return mosquittoJSON(c == 'J', pretty), nil
	}
	return nil, fmt.Errorf("unknown sequence %%%c", c)
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// digits returns the number, or nothing if the property is absent.
func digits[N byte | uint16 | uint32 | int](n *N) string {
	if n == nil {
		return ""
	}
	return strconv.Itoa(int(*n))
}

// jsonValue encodes without turning <, > and & into escapes.
func jsonValue(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return json.RawMessage("null") // strings and numbers only: it cannot fail
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

// An object is a JSON object whose members keep their order.
type object []member

type member struct {
	name  string
	value json.RawMessage
}

func (o *object) add(name string, v any) { *o = append(*o, member{name, jsonValue(v)}) }

func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(jsonValue(m.name))
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// propertiesOf returns the properties under the names mosquitto has for them.
func propertiesOf(m *paho.Publish) object {
	var o object
	p := m.Properties
	if p.ContentType != "" {
		o.add("content-type", p.ContentType)
	}
	if len(p.User) > 0 {
		var users object // a name may stand several times
		for _, u := range p.User {
			users.add(u.Key, u.Value)
		}
		o.add("user-properties", users)
	}
	if p.ResponseTopic != "" {
		o.add("response-topic", p.ResponseTopic)
	}
	if p.CorrelationData != nil {
		o.add("correlation-data", string(p.CorrelationData))
	}
	if p.PayloadFormat != nil {
		o.add("payload-format-indicator", *p.PayloadFormat)
	}
	if p.MessageExpiry != nil {
		o.add("message-expiry-interval", *p.MessageExpiry)
	}
	if p.SubscriptionIdentifier != nil {
		o.add("subscription-identifier", *p.SubscriptionIdentifier)
	}
	if p.TopicAlias != nil {
		o.add("topic-alias", *p.TopicAlias)
	}
	return o
}

// mosquittoJSON is %j, or %J if raw: then the payload stands as JSON, and has
// to be JSON.
func mosquittoJSON(raw, pretty bool) formatter {
	return func(b *bytes.Buffer, m *paho.Publish, at time.Time) error {
		var o object
		o.add("tst", at.Format("2006-01-02T15:04:05.000000Z-0700"))
		o.add("topic", m.Topic)
		o.add("qos", m.QoS)
		o.add("retain", bit(m.Retain))
		o.add("payloadlen", len(m.Payload))
		if m.QoS > 0 {
			o.add("mid", m.PacketID)
		}
		if p := propertiesOf(m); len(p) > 0 {
			o.add("properties", p)
		}
		switch {
		case raw && !isJSON(m.Payload):
			return fmt.Errorf("the payload on %s is not valid JSON; -o jsonl prints any payload", m.Topic)
		case raw:
			o = append(o, member{"payload", m.Payload})
		default:
			o.add("payload", string(m.Payload))
		}
		text := jsonValue(o)
		if !pretty {
			return json.Compact(b, text)
		}
		return json.Indent(b, text, "", "\t")
	}
}

// isJSON asks for valid UTF-8 too, which json.Valid does not.
func isJSON(b []byte) bool { return utf8.Valid(b) && json.Valid(b) }

// jsonLine is -o jsonl: valid for every payload. Fields are added to it, never
// renamed.
func jsonLine(b *bytes.Buffer, m *paho.Publish, at time.Time) error {
	var o object
	o.add("time", at.UTC().Format(time.RFC3339Nano))
	o.add("topic", m.Topic)
	o.add("qos", m.QoS)
	o.add("retain", m.Retain)
	switch {
	case isJSON(m.Payload):
		o = append(o, member{"json", m.Payload})
	case utf8.Valid(m.Payload):
		o.add("payload", string(m.Payload))
	default:
		o.add("payload_b64", base64.StdEncoding.EncodeToString(m.Payload))
	}
	if p := jsonProperties(m); len(p) > 0 {
		o.add("properties", p)
	}
	return json.Compact(b, jsonValue(o))
}

// jsonProperties differs from propertiesOf where that loses something: a name
// that stands twice, and correlation data, which is binary.
func jsonProperties(m *paho.Publish) object {
	o := propertiesOf(m)
	for i := range o {
		switch o[i].name {
		case "user-properties":
			var pairs [][2]string
			for _, u := range m.Properties.User {
				pairs = append(pairs, [2]string{u.Key, u.Value})
			}
			o[i].value = jsonValue(pairs)
		case "correlation-data":
			o[i] = member{"correlation-data_b64", jsonValue(m.Properties.CorrelationData)}
		}
	}
	return o
}
