package main

import "fmt"

// A code names a kind of error for ever: BW-NNNN in messages, in MQTT Reason
// Strings, in logs. Its first digit says what it is about: 1 connection,
// 2 configuration and usage, 3 protocol, 4 identity and access, 5 storage,
// 6 profile documents, 7 cluster, 8 limits, 9 a fault of ours.
type code int

const (
	bwUnreachable  code = 1002
	bwBusy         code = 1003
	bwLost         code = 1004
	bwTimedOut     code = 1005
	bwNoAnswer     code = 1006
	bwTLS          code = 1007
	bwTakenOver    code = 1008
	bwUsage        code = 2001
	bwEnvironment  code = 2002
	bwNoSuchCode   code = 2003
	bwFile         code = 2004
	bwLimitsFile   code = 2010
	bwPolicyFile   code = 2011
	bwOpenListener code = 2012
	bwAddressInUse code = 2013
	bwConfigFile   code = 2014
	bwOldProtocol  code = 3001
	bwRefused      code = 3002
	bwSomeRefused  code = 3003
	bwDenied       code = 4001
	bwDataInUse    code = 5001
	bwDataOther    code = 5002
	bwDataNewer    code = 5003
	bwDataDamaged  code = 5004
	bwOwnPolicy    code = 6001
	bwNotSet       code = 6002
	bwLimit        code = 8001
	bwUnclassified code = 9001
)

// A codeEntry is what the registry knows of a code.
type codeEntry struct {
	code  code
	exit  int
	title string // what happened, in one line
	todo  string // what to do, in one line: printed with the error
	more  string // the page of `bellwire explain`
}

// codes is the registry, sorted by code: what is not in it is not printed, and
// a test fails on an entry that nothing uses or that gives no advice.
var codes = []codeEntry{
	{
		bwUnreachable, exitUnreachable, "no connection to the server",
		"is the server up, and are host and port right? try: bellwire dev",
		`No TCP connection could be opened. "connection refused" means that the host is
there and nothing listens on the port; a time-out, that a firewall drops the
packets or the host is down; "no such host", that the name does not resolve.`,
	},
	{
		bwBusy, exitUnreachable, "the server takes no work now",
		"try again later",
		`The server answered and sent the client away: it shuts down, is too busy, or
has no leader. It is not the client's fault, and the same request may succeed
later, or at another node.`,
	},
	{
		bwLost, exitUnreachable, "the connection broke",
		"what was not acknowledged may or may not have arrived; publish it again if twice is better than never",
		`The connection ended without a DISCONNECT, or the server ended it because it
heard nothing for one and a half keep-alive intervals. A message whose
acknowledgement is missing has an unknown fate.`,
	},
	{
		bwTimedOut, exitTimeout, "the time given with -W is over",
		"wait longer with -W, or check the topic and the permission to subscribe to it",
		`sub -W SECONDS ends with exit code 6 when the time is over before what it
waited for has come (mosquitto_sub says 27). Messages printed until then are
complete.`,
	},
	{
		bwNoAnswer, exitUnreachable, "the server does not answer as an MQTT 5 server does",
		"does the port belong to an MQTT 5 broker, and is it plain MQTT rather than TLS or WebSocket?",
		`The connection was opened, but a CONNACK did not come. Usually the port
belongs to something else, wants TLS (use --cafile, or port 8883), or the
broker knows MQTT 3.1.1 only.`,
	},
	{
		bwTLS, exitUnreachable, "TLS could not be agreed on",
		"check --cafile against the server's certificate, and that the port speaks TLS",
		`The TLS handshake failed. "unknown authority": --cafile does not hold the
authority that signed the server's certificate. A wrong name: connect by the
name in the certificate. "first record does not look like a TLS handshake":
the port speaks plain MQTT.`,
	},
	{
		bwTakenOver, exitFailed, "another client connected with the same client id",
		"give each client an id of its own with --id, or none",
		`A client id names one session, and the newest connection has it. Reconnecting
here would throw the other one out in turn, so we do not.`,
	},
	{
		bwUsage, exitUsage, "the command line is not understood",
		"see the verb's --help",
		`A flag, an argument or a combination of them means nothing to this verb.
The message names it and, where one is near, what was probably meant.
Every verb lists its flags with --help.`,
	},
	{
		bwEnvironment, exitUsage, "an environment variable holds no valid value",
		"correct the variable, or unset it",
		`Every flag has a twin in the environment: BELLWIRE_ and its name in upper
case, with _ for -. A flag on the command line wins over its twin. The twin is
read by every verb that has the flag, and must hold a valid value for it.`,
	},
	{
		bwNoSuchCode, exitNotFound, "no error has this code",
		"bellwire explain lists all codes",
		`Codes look like BW-1002. A code that a newer bellwire printed may be unknown
to this one.`,
	},
	{
		bwFile, exitFailed, "a file could not be read or written",
		"check the name and the permission",
		`A file named on the command line, standard input or standard output failed.
The message holds what the system said.`,
	},
	{
		bwLimitsFile, exitUsage, "the limits file is not valid",
		"correct the file: every fault is listed with its place",
		`A limits file holds v: 1 and under default: one row for each bound that is
not to have its default. A row that is not known, a number without its unit
where one is needed, or a value out of bounds refuses the whole file. The rows
may stand in the configuration file as well, under limits.`,
	},
	{
		bwPolicyFile, exitUsage, "the policy file is not valid",
		"correct the file: every fault is listed with its place",
		`The operator's policy cannot be read, is not YAML, or says something that has
no meaning. Every fault is shown with its line, a caret and, where one is near,
what was probably meant. The policy is refused whole: a running server keeps
the one in force. bellwire acl test FILE checks a file without a server.`,
	},
	{
		bwOpenListener, exitUsage, "the server would be open to everybody",
		"give --policy, or listen on 127.0.0.1",
		`Without a policy --allow-anonymous permits everything to everybody. That is
for trying things out on one machine, so it is refused on other addresses than
loopback.`,
	},
	{
		bwAddressInUse, exitFailed, "the address is in use",
		"end whoever listens there, or give another address; port 0 takes a free one",
		`Another process listens on the address and port. ss -ltnp shows which.`,
	},
	{
		bwConfigFile, exitUsage, "the configuration file is not valid",
		"correct the file: every fault is listed with its place",
		`The file given with serve -f cannot be read, is not YAML, or says something that
has no meaning. Its keys are node, domain, data, mqtt: {addr}, http: {addr},
policy, limits and allow_anonymous; bellwire serve --help says what for. Every
fault is shown with its line, a caret and, where one is near, what was probably
meant. Nothing was started.`,
	},
	{
		bwOldProtocol, exitUsage, "only MQTT 5 is spoken by bellwire pub and sub",
		"leave -V away, or use mosquitto_pub and mosquitto_sub, which any MQTT 3.1.1 server and bellwire understand",
		`pub and sub speak MQTT 5: only that protocol tells why something was refused.
The server itself takes MQTT 3.1.1 and 5 clients alike.`,
	},
	{
		bwRefused, exitFailed, "the server refused",
		"the message says what it did not accept; the same will be refused again",
		`The server answered with a reason code of MQTT 5 that means no, for another
reason than a missing permission: an invalid topic, a malformed packet, a
feature it does not have.`,
	},
	{
		bwSomeRefused, exitPartial, "some of the items were refused",
		"the reasons and their counts are above; what was not refused is done",
		`Of several messages or topic filters the server refused some. Those it did not
refuse were carried out. When it refuses all of them, the exit code is that of
the first reason.`,
	},
	{
		bwDenied, exitDenied, "not allowed",
		"check user name, password and what the policy allows: bellwire acl explain",
		`The server knows the request and this client may not make it: the credentials
are wrong, or no rule of the policy allows it to this principal, or none does
at this hour.`,
	},
	{
		bwDataInUse, exitFailed, "another process uses the data directory",
		"end that process, or give another --data",
		`A data directory belongs to one running process, which holds a lock on it.`,
	},
	{
		bwDataOther, exitFailed, "the data directory belongs to another node",
		"give the --node that it belongs to, or another --data",
		`A node's identity is in its data directory. Starting it under another name
would let it vote as somebody it is not. Nothing in it was changed.`,
	},
	{
		bwDataNewer, exitFailed, "the data directory was written by a newer version",
		"start the version that wrote it, or a later one",
		`The form of the data is newer than this program knows. Nothing in it was
changed.`,
	},
	{
		bwDataDamaged, exitFailed, "the data directory is damaged",
		"restore it from a backup; nothing in it was changed",
		`What is on the disk is not what was written: a file is missing, cut short or
altered. The node does not guess: a log that was truncated by guess would have
it forget what it acknowledged.`,
	},
	{
		bwOwnPolicy, exitUsage, "an owner's policy is not valid",
		"correct the document: every fault is listed with its JSON pointer",
		`A policy says who may watch its owner, when, and what each of them sees: JSON
after RFC 4745 and RFC 5025. A document with a fault is refused whole, and the
one in force stays. A pointer such as /rules/0/if/weekly/tz names the place;
what a newer version understands and this one does not is a fault where passing
over it would show more than was meant.`,
	},
	{
		bwNotSet, exitNotFound, "what was asked for is not set",
		"set it first",
		`Nothing has been set, and the default holds: an owner without a policy shows
nobody anything.`,
	},
	{
		bwLimit, exitFailed, "a limit of the server was reached",
		"send less at a time, or have the operator raise the limit",
		`The server bounds what a client may send, store or hold open, and this request
went past a bound. A full disk is reported this way too: durable messages are
refused while it lasts.`,
	},
	{
		bwUnclassified, exitFailed, "the operation failed",
		"the message is all we know; if it does not help, that is our fault: please report it",
		`An error reached the top of the program without having been given a code,
so there is no better advice than the message itself. Please report it with
the command line, so that it gets one.`,
	},
}

func (c code) String() string { return fmt.Sprintf("BW-%04d", int(c)) }

// entry returns the registry's entry. A code without one cannot be printed
// usefully, and a test makes sure that there is none.
func (c code) entry() codeEntry {
	for _, e := range codes {
		if e.code == c {
			return e
		}
	}
	panic(fmt.Sprintf("code %d is not in the registry", int(c)))
}
