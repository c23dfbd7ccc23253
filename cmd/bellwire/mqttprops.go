package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/spf13/cobra"
)

// wordEnd joins the words of one -D into one argument: no argument of a
// program can hold it.
const wordEnd = "\x00"

// mosquittoArgs joins what pflag cannot read. mosquitto's -D takes three words
// (command, property, value), and four for a user-property; a position may begin
// with a minus.
func mosquittoArgs(root *cobra.Command, args []string) []string {
	cmd, _, err := root.Find(args)
	if err == nil && cmd.CommandPath() == "bellwire location set" {
		return positionLast(cmd, args)
	}
	if err != nil || cmd.Flags().Lookup("property") == nil {
		return args
	}
	var joined []string
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "--":
			return append(joined, args[i:]...)
		case arg == "-D" || arg == "--property":
			n := 3
			if i+2 < len(args) && args[i+2] == "user-property" {
				n = 4
			}
			words := args[i+1 : min(i+1+n, len(args))]
			joined = append(joined, "--property="+strings.Join(words, wordEnd))
			i += len(words)
		default:
			joined = append(joined, arg)
			if takesNext(cmd, arg) && i+1 < len(args) {
				i++ // so that the message of -m -D is "-D"
				joined = append(joined, args[i])
			}
		}
	}
	return joined
}

// takesNext reports whether arg is a flag whose value is the next argument.
func takesNext(cmd *cobra.Command, arg string) bool {
	if name, ok := strings.CutPrefix(arg, "--"); ok {
		f := cmd.Flags().Lookup(name) // nil if it holds a "="
		return f != nil && f.NoOptDefVal == ""
	}
	letters, ok := strings.CutPrefix(arg, "-")
	if !ok {
		return false
	}
	for i := range len(letters) {
		f := cmd.Flags().ShorthandLookup(letters[i : i+1])
		if f == nil {
			return false
		}
		if f.NoOptDefVal == "" {
			return i == len(letters)-1
		}
	}
	return false
}

// properties are the values of -D, by mosquitto's name of the packet they go
// into. It is a pflag.Value.
type properties struct {
	allowed map[string][]string // command to the properties it may have
	set     map[string]*packets.Properties
}

var (
	connectProps = []string{
		"authentication-data", "authentication-method", "maximum-packet-size", "receive-maximum",
		"request-problem-information", "request-response-information", "session-expiry-interval",
		"topic-alias-maximum", "user-property",
	}
	publishProps = []string{
		"content-type", "correlation-data", "message-expiry-interval", "payload-format-indicator",
		"response-topic", "topic-alias", "user-property",
	}
	willProps = []string{
		"content-type", "correlation-data", "message-expiry-interval", "payload-format-indicator",
		"response-topic", "user-property", "will-delay-interval",
	}
	disconnectProps = []string{"session-expiry-interval", "user-property"}
	userProps       = []string{"user-property"}
)

func pubProperties() *properties {
	return &properties{
		allowed: map[string][]string{"connect": connectProps, "publish": publishProps, "will": willProps, "disconnect": disconnectProps},
		set:     map[string]*packets.Properties{},
	}
}

func subProperties() *properties {
	return &properties{
		allowed: map[string][]string{
			"connect": connectProps, "subscribe": userProps, "unsubscribe": userProps, "will": willProps, "disconnect": disconnectProps,
		},
		set: map[string]*packets.Properties{},
	}
}

func (p *properties) String() string { return "" }
func (p *properties) Type() string   { return "command property value" }

// Set reads one -D. Its twin in the environment separates the words by blanks.
func (p *properties) Set(text string) error {
	words := strings.Split(text, wordEnd)
	if len(words) == 1 {
		words = strings.Fields(text)
	}
	if len(words) < 3 {
		return fmt.Errorf("want a command, a property and a value")
	}
	command, name, value := strings.ToLower(words[0]), strings.ToLower(words[1]), words[2]
	allowed, ok := p.allowed[command]
	if !ok {
		return fmt.Errorf("properties of %q cannot be set here", words[0])
	}
	if !slices.Contains(allowed, name) {
		return fmt.Errorf("%s has no property %q, only %s", command, words[1], strings.Join(allowed, ", "))
	}
	if p.set[command] == nil {
		p.set[command] = &packets.Properties{}
	}
	to := p.set[command]
	if name != "user-property" {
		if len(words) != 3 {
			return fmt.Errorf("%s takes one value", name)
		}
		return setProperty(to, name, value)
	}
	if len(words) != 4 {
		return fmt.Errorf("user-property takes a name and a value")
	}
	to.User = append(to.User, packets.User{Key: value, Value: words[3]})
	return nil
}

func setProperty(to *packets.Properties, name, value string) error {
	number := func(bits int) (uint64, error) {
		n, err := strconv.ParseUint(value, 10, bits)
		if err != nil {
			return 0, fmt.Errorf("%s is a number from 0 to %d, not %q", name, uint64(1)<<bits-1, value)
		}
		return n, nil
	}
	bit := func(to **byte) error {
		if value != "0" && value != "1" {
			return fmt.Errorf("%s is 0 or 1, not %q", name, value)
		}
		*to = paho.Byte(value[0] - '0')
		return nil
	}
	u16 := func(to **uint16) error {
		n, err := number(16)
		*to = paho.Uint16(uint16(n))
		return err
	}
	u32 := func(to **uint32) error {
		n, err := number(32)
		*to = paho.Uint32(uint32(n))
		return err
	}
	switch name {
	case "authentication-data":
		to.AuthData = []byte(value)
	case "authentication-method":
		to.AuthMethod = value
	case "content-type":
		to.ContentType = value
	case "correlation-data":
		to.CorrelationData = []byte(value)
	case "response-topic":
		to.ResponseTopic = value
	case "payload-format-indicator":
		return bit(&to.PayloadFormat)
	case "request-problem-information":
		return bit(&to.RequestProblemInfo)
	case "request-response-information":
		return bit(&to.RequestResponseInfo)
	case "receive-maximum":
		if value == "0" {
			return fmt.Errorf("receive-maximum 0 would let nothing through")
		}
		return u16(&to.ReceiveMaximum)
	case "topic-alias":
		return u16(&to.TopicAlias)
	case "topic-alias-maximum":
		return u16(&to.TopicAliasMaximum)
	case "maximum-packet-size":
		return u32(&to.MaximumPacketSize)
	case "message-expiry-interval":
		return u32(&to.MessageExpiry)
	case "session-expiry-interval":
		return u32(&to.SessionExpiryInterval)
	case "will-delay-interval":
		return u32(&to.WillDelayInterval)
	}
	return nil
}

// of returns the properties for a command; empty ones if there are none.
func (p *properties) of(command string) *packets.Properties {
	if set := p.set[command]; set != nil {
		return set
	}
	return &packets.Properties{}
}
