package mqtt

import (
	"unsafe"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/internal/wire"
)

// view is b as a string that aliases it.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// A propSet is a set of property identifiers, all of which are below 64.
type propSet uint64

func props(ids ...byte) (s propSet) {
	for _, id := range ids {
		s |= 1 << id
	}
	return s
}

func (s propSet) has(id byte) bool { return s&(1<<id) != 0 }

// Which properties a client may send in which packet.
var (
	connectProps = props(packets.PropSessionExpiryInterval, packets.PropReceiveMaximum, packets.PropMaximumPacketSize,
		packets.PropTopicAliasMaximum, packets.PropRequestResponseInfo, packets.PropRequestProblemInfo, packets.PropUser,
		packets.PropAuthenticationMethod, packets.PropAuthenticationData)
	forwardedProps = props(packets.PropPayloadFormat, packets.PropContentType, packets.PropResponseTopic,
		packets.PropCorrelationData, packets.PropUser)
	willProps       = forwardedProps | props(packets.PropWillDelayInterval, packets.PropMessageExpiryInterval)
	publishProps    = forwardedProps | props(packets.PropMessageExpiryInterval, packets.PropTopicAlias)
	ackProps        = props(packets.PropReasonString, packets.PropUser)
	subscribeProps  = props(packets.PropSubscriptionIdentifier, packets.PropUser)
	unsubProps      = props(packets.PropUser)
	disconnectProps = props(packets.PropSessionExpiryInterval, packets.PropReasonString, packets.PropUser)
	authProps       = props(packets.PropAuthenticationMethod, packets.PropAuthenticationData, packets.PropReasonString, packets.PropUser)
)

// The form of a property's value.
type propForm uint8

const (
	formUnknown propForm = iota
	formByte
	formFlag // a byte of 0 or 1
	formUint16
	formUint32
	formVarint
	formText
	formBinary
	formPair
)

var propForms = [64]propForm{
	packets.PropPayloadFormat:          formFlag,
	packets.PropMessageExpiryInterval:  formUint32,
	packets.PropContentType:            formText,
	packets.PropResponseTopic:          formText,
	packets.PropCorrelationData:        formBinary,
	packets.PropSubscriptionIdentifier: formVarint,
	packets.PropSessionExpiryInterval:  formUint32,
	packets.PropAssignedClientID:       formText,
	packets.PropServerKeepAlive:        formUint16,
	packets.PropAuthenticationMethod:   formText,
	packets.PropAuthenticationData:     formBinary,
	packets.PropRequestProblemInfo:     formFlag,
	packets.PropWillDelayInterval:      formUint32,
	packets.PropRequestResponseInfo:    formFlag,
	packets.PropResponseInfo:           formText,
	packets.PropServerReference:        formText,
	packets.PropReasonString:           formText,
	packets.PropReceiveMaximum:         formUint16,
	packets.PropTopicAliasMaximum:      formUint16,
	packets.PropTopicAlias:             formUint16,
	packets.PropMaximumQos:             formByte,
	packets.PropRetainAvailable:        formByte,
	packets.PropUser:                   formPair,
	packets.PropMaximumPacketSize:      formUint32,
	packets.PropWildcardSubAvailable:   formByte,
	packets.PropSubIDAvailable:         formByte,
	packets.PropSharedSubAvailable:     formByte,
}

// A property is one property as it lies in a packet.
type property struct {
	id  byte
	num uint32 // the value, where it is a number
	raw []byte // identifier and value
}

// A propWalker goes through the properties of a packet and checks each: that
// it may stand there, that it is whole, that it is not a repeat (only User
// Property may be), and that its value is one that the standard allows.
type propWalker struct {
	wire.Fields
	allowed, seen propSet
}

// walkProps takes the properties off c: their length, then as many bytes.
func walkProps(c *wire.Fields, allowed propSet) propWalker {
	return propWalker{Fields: wire.Fields{Rest: c.Take(c.Varint())}, allowed: allowed}
}

// next returns the next property. ok is false at the end.
func (w *propWalker) next() (p property, ok bool, err error) {
	if len(w.Rest) == 0 {
		return p, false, nil
	}
	at := w.Rest
	p.id = w.Byte()
	form := formUnknown
	if int(p.id) < len(propForms) {
		form = propForms[p.id]
	}
	var text []byte
	switch form {
	case formUnknown:
		return p, false, malformed("unknown property")
	case formByte, formFlag:
		p.num = uint32(w.Byte())
	case formUint16:
		p.num = uint32(w.Uint16())
	case formUint32:
		p.num = w.Uint32()
	case formVarint:
		p.num = uint32(w.Varint())
	case formText, formBinary:
		text = w.Bytes()
	case formPair:
		name, value := w.Bytes(), w.Bytes()
		if !validText(name) || !validText(value) {
			return p, false, malformed("a string that is not UTF-8")
		}
	}
	if w.Short {
		return p, false, malformed("property runs past the end")
	}
	if form == formText && !validText(text) {
		return p, false, malformed("a string that is not UTF-8")
	}
	p.raw = at[:len(at)-len(w.Rest)]
	if !w.allowed.has(p.id) {
		return p, false, protocolError("a property that this packet cannot carry")
	}
	if w.seen.has(p.id) && form != formPair {
		return p, false, protocolError("a property twice")
	}
	w.seen |= 1 << p.id
	return p, true, checkProp(p, form, text)
}

// checkProp checks the value of a property where not every one is allowed.
func checkProp(p property, form propForm, text []byte) error {
	if form == formFlag && p.num > 1 {
		return protocolError("a property that must be 0 or 1")
	}
	switch p.id {
	case packets.PropReceiveMaximum, packets.PropMaximumPacketSize, packets.PropSubscriptionIdentifier:
		if p.num == 0 {
			return protocolError("a property that must not be 0")
		}
	case packets.PropTopicAlias:
		if p.num == 0 {
			return &fault{codeBadAlias, "topic alias 0"}
		}
	case packets.PropResponseTopic:
		if topic.ValidName(view(text)) != nil {
			return protocolError("response topic is not a topic name")
		}
	}
	return nil
}

// all walks to the end, for a packet of whose properties no value matters.
func (w *propWalker) all() error {
	for {
		if _, ok, err := w.next(); !ok || err != nil {
			return err
		}
	}
}
