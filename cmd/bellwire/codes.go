package main

import "fmt"

// A code names a kind of error for ever: BW-NNNN in messages, in MQTT Reason
// Strings, in logs. Its first digit says what it is about: 1 connection,
// 2 configuration and usage, 3 protocol, 4 identity and access, 5 storage,
// 6 profile documents, 7 cluster, 8 limits, 9 a fault of ours.
type code int

const (
	bwUsage        code = 2001
	bwEnvironment  code = 2002
	bwNoSuchCode   code = 2003
	bwLimitsFile   code = 2010
	bwPolicyFile   code = 2011
	bwOpenListener code = 2012
	bwAddressInUse code = 2013
	bwDataInUse    code = 5001
	bwDataOther    code = 5002
	bwDataNewer    code = 5003
	bwDataDamaged  code = 5004
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
		bwLimitsFile, exitUsage, "the limits file is not valid",
		"correct the file: the message says where and what is wanted",
		`A limits file holds v: 1 and under default: one row for each bound that is
not to have its default. A row that is not known, a number without its unit
where one is needed, or a value out of bounds refuses the whole file.`,
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
