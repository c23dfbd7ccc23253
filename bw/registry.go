package bw

// registry is sorted by code. What is not in it is not printed, and a test fails
// on an entry that nothing uses or that gives no advice.
var registry = []Entry{
	{
		Unreachable, "no connection to the server",
		"is the server up, and are host and port right? try: bellwire dev",
		`No TCP connection could be opened. "connection refused" means that the host is
there and nothing listens on the port; a time-out, that a firewall drops the
packets or the host is down; "no such host", that the name does not resolve.`,
	},
	{
		Busy, "the server takes no work now",
		"try again later",
		`The server answered and sent the client away: it shuts down, is too busy, or
has no leader. It is not the client's fault, and the same request may succeed
later, or at another node.`,
	},
	{
		Lost, "the connection broke",
		"what was not acknowledged may or may not have arrived; publish it again if twice is better than never",
		`The connection ended without a DISCONNECT, or the server ended it because it
heard nothing for one and a half keep-alive intervals. A message whose
acknowledgement is missing has an unknown fate.`,
	},
	{
		TimedOut, "the time given with -W is over",
		"wait longer with -W, or check the topic and the permission to subscribe to it",
		`sub -W SECONDS ends with exit code 6 when the time is over before what it
waited for has come (mosquitto_sub says 27). Messages printed until then are
complete.`,
	},
	{
		NoAnswer, "the server does not answer as an MQTT 5 server does",
		"does the port belong to an MQTT 5 broker, and is it plain MQTT rather than TLS or WebSocket?",
		`The connection was opened, but a CONNACK did not come. Usually the port
belongs to something else, wants TLS (use --cafile, or port 8883), or the
broker knows MQTT 3.1.1 only.`,
	},
	{
		TLS, "TLS could not be agreed on",
		"check --cafile against the server's certificate, and that the port speaks TLS",
		`The TLS handshake failed. "unknown authority": --cafile does not hold the
authority that signed the server's certificate. A wrong name: connect by the
name in the certificate. "first record does not look like a TLS handshake":
the port speaks plain MQTT.`,
	},
	{
		TakenOver, "another client connected with the same client id",
		"give each client an id of its own with --id, or none",
		`A client id names one session, and the newest connection has it. Reconnecting
here would throw the other one out in turn, so we do not.`,
	},
	{
		Usage, "the command line is not understood",
		"see the verb's --help",
		`A flag, an argument or a combination of them means nothing to this verb.
The message names it and, where one is near, what was probably meant.
Every verb lists its flags with --help.`,
	},
	{
		Environment, "an environment variable holds no valid value",
		"correct the variable, or unset it",
		`Every flag has a twin in the environment: BELLWIRE_ and its name in upper
case, with _ for -. A flag on the command line wins over its twin. The twin is
read by every verb that has the flag, and must hold a valid value for it.`,
	},
	{
		NoSuchCode, "no error has this code",
		"bellwire explain lists all codes",
		`Codes look like BW-1002. A code that a newer bellwire printed may be unknown
to this one.`,
	},
	{
		File, "a file could not be read or written",
		"check the name and the permission",
		`A file named on the command line, standard input or standard output failed.
The message holds what the system said.`,
	},
	{
		LimitsFile, "the limits file is not valid",
		"correct the file: every fault is listed with its place",
		`A limits file holds v: 1 and under default: one row for each bound that is
not to have its default. A row that is not known, a number without its unit
where one is needed, or a value out of bounds refuses the whole file. The rows
may stand in the configuration file as well, under limits.`,
	},
	{
		PolicyFile, "the policy file is not valid",
		"correct the file: every fault is listed with its place",
		`The operator's policy cannot be read, is not YAML, or says something that has
no meaning. Every fault is shown with its line, a caret and, where one is near,
what was probably meant. The policy is refused whole: a running server keeps
the one in force. bellwire acl test FILE checks a file without a server.`,
	},
	{
		OpenListener, "the server would be open to everybody",
		"give --policy, or listen on 127.0.0.1",
		`Without a policy --allow-anonymous permits everything to everybody. That is
for trying things out on one machine, so it is refused on other addresses than
loopback.`,
	},
	{
		AddressInUse, "the address is in use",
		"end whoever listens there, or give another address; port 0 takes a free one",
		`Another process listens on the address and port. ss -ltnp shows which.`,
	},
	{
		ConfigFile, "the configuration file is not valid",
		"correct the file: every fault is listed with its place",
		`The file given with serve -f cannot be read, is not YAML, or says something that
has no meaning. Its keys are node, domain, data, mqtt: {addr}, http: {addr},
listeners, cluster: {listen, advertise, join, bootstrap, tls}, policy, limits,
allow_anonymous, pprof and verbose; bellwire serve --help says what for. Every fault is shown with its line, a caret and, where one is near,
what was probably meant. Nothing was started.`,
	},
	{
		WouldOverwrite, "a file would be overwritten",
		"give another place, or --force",
		`The verb makes files, and one of them exists. Nothing has been written. Keys and
certificates that are overwritten are lost, and whoever relies on them with
them: so it has to be asked for.`,
	},
	{
		NotConfirmed, "what cannot be undone was not confirmed",
		"check that it is what you mean, and confirm it with --confirm",
		`The verb does something that cannot be undone, and asks before. Who is not at a
terminal confirms it with --confirm and the word that would have been asked for,
or with --yes. Nothing was changed.`,
	},
	{
		PolicyMoved, "the policy was changed meanwhile",
		"look at what is in force now (bellwire acl diff FILE), and apply again",
		`The policy that was to be replaced is not the one in force any more: somebody
else has put another one in force since it was read. Nothing was changed. bellwire
acl history tells who and when.`,
	},
	{
		PolicyTests, "a policy's own test fails",
		"mend the rule or the test: bellwire acl test FILE runs them without a server",
		`The tests that a policy file holds are run before it is put in force. One of them
expects another answer than the rules give, so that either is wrong; the policy in
force stays.`,
	},
	{
		NoSuchPolicy, "no such policy is kept",
		"bellwire acl history lists those that are",
		`A cluster keeps the policies that were in force, the last hundred and 16 MiB at
most, with their numbers; older ones are gone. While a node of an older version is
a member there are none.`,
	},
	{
		TLSFiles, "a listener's certificate files cannot be used",
		"put a certificate, its key and whatever it was issued by there, in PEM; a running server notices it by itself",
		`A certificate, its key or the authorities of clients cannot be read, do not
belong together, or have ended. At the start nothing is served. A running server
goes on with those that it read before: it looks at the files every two seconds
and on SIGHUP, and logs what it took. openssl x509 -in FILE -noout -text shows a
certificate.`,
	},
	{
		OldProtocol, "only MQTT 5 is spoken by bellwire pub and sub",
		"leave -V away, or use mosquitto_pub and mosquitto_sub, which any MQTT 3.1.1 server and bellwire understand",
		`pub and sub speak MQTT 5: only that protocol tells why something was refused.
The server itself takes MQTT 3.1.1 and 5 clients alike.`,
	},
	{
		Refused, "the server refused",
		"the message says what it did not accept; the same will be refused again",
		`The server answered with a reason code of MQTT 5 that means no, for another
reason than a missing permission: an invalid topic, a malformed packet, a
feature it does not have.`,
	},
	{
		SomeRefused, "some of the items were refused",
		"the reasons and their counts are above; what was not refused is done",
		`Of several messages or topic filters the server refused some. Those it did not
refuse were carried out. When it refuses all of them, the exit code is that of
the first reason.`,
	},
	{
		Denied, "not allowed",
		"the message says why; -u and -P say who you are",
		`The server knows the request and this client may not make it: not as who it is,
or not without saying who. What the operator's policy refuses has a code of its
own, BW-4031, what somebody's own policy refuses BW-4003, and a wrong password
BW-4002.`,
	},
	{
		BadCredentials, "bad user name or password",
		"check -u and -P; the password of a device is its token",
		`The credentials of a CONNECT prove nothing: the policy has no such user, or the
password or token is another one. Which of the two is not told. A client
without credentials is anonymous, and is let in with --allow-anonymous only.`,
	},
	{
		ByOwner, "whose it is does not allow it",
		"ask them: their own policy decides, and why is for them alone to know",
		`Who sees somebody's presence or location, and as whom, is said by a policy of
theirs, which they may change at any time; the operator's has no say in that.
"rejected" and the end of a subscription are their answer. "identity-required":
they show it to who shows more of itself (bellwire presence watch --visibility).
"probation": they want to be asked again later only.`,
	},
	{
		NoSuchClient, "no such ban, or no such client",
		"bellwire ban ls lists bans, as they were named; a client is named by its id",
		`A ban is ended by all that it names, and one that was for a time ends by itself.
A client whose connection is to be ended has to be connected, to whichever node;
with --drop-session it is enough that it has a session.`,
	},
	{
		ByPolicy, "the operator's policy does not allow it",
		"ask why with the id that the message ends with: bellwire acl explain ID",
		`A rule or limit of the operator's policy refuses it, or no rule allows it, to
this principal at this hour. The id at the end names the decision: with it the
node that took it, asked through any node, tells by which rule and line, and when
that changes. Whoever was refused may ask, and operators may.`,
	},
	{
		NotExplained, "no such decision is known",
		"try again what was refused, and ask about the new id",
		`Each node remembers its newest refusals, about four thousand, until it is started
anew. The id is mistyped, or of a refusal that was pushed out by newer ones, or of
a node that was started since or is down; or the refusal was somebody else's, whose
reasons are for operators and for whom it hit.`,
	},
	{
		DataInUse, "another process uses the data directory",
		"end that process, or give another --data",
		`A data directory belongs to one running process, which holds a lock on it.`,
	},
	{
		DataOther, "the data directory belongs to another node",
		"give the --node that it belongs to, or another --data",
		`A node's identity is in its data directory. Starting it under another name
would let it vote as somebody it is not. Nothing in it was changed.`,
	},
	{
		DataNewer, "the data directory was written by a newer version",
		"start the version that wrote it, or a later one",
		`The form of the data is newer than this program knows. Nothing in it was
changed.`,
	},
	{
		DataDamaged, "the data directory is damaged",
		"restore it from a backup; nothing in it was changed",
		`What is on the disk is not what was written: a file is missing, cut short or
altered. The node does not guess: a log that was truncated by guess would have
it forget what it acknowledged.`,
	},
	{
		DiskFull, "the server's disk is nearly full",
		"wait until the operator has made room, and publish again",
		`Free space is below the low-water mark (disk.lowWater of the limits file; the
lesser of 5 % and 512 MiB). Durable publishes are refused until there is more:
what was acknowledged before is kept, and everything else goes on.`,
	},
	{
		BackupDamaged, "the backup is damaged",
		"take another one, or use an older one; nothing was changed",
		`A backup ends with checksums of what is in it, and what is in it differs from them
or is not all there. bellwire backup verify FILE tells beforehand.`,
	},
	{
		OwnPolicy, "an owner's policy is not valid",
		"correct the document: every fault is listed with its JSON pointer",
		`A policy says who may watch its owner, when, and what each of them sees: JSON
after RFC 4745 and RFC 5025. A document with a fault is refused whole, and the
one in force stays. A pointer such as /rules/0/if/weekly/tz names the place;
what a newer version understands and this one does not is a fault where passing
over it would show more than was meant.`,
	},
	{
		NotSet, "what was asked for is not set",
		"set it first",
		`Nothing has been set, and the default holds: an owner without a policy shows
nobody anything.`,
	},
	{
		NoSuchKind, "the topic belongs to a kind of event that is not enabled",
		"use another first level: this one is reserved",
		`First levels such as presence, im and location belong to kinds of event that give
their topics a meaning of their own. A kind that this server does not have takes
no publications and no subscriptions.`,
	},
	{
		BadPayload, "the payload is not acceptable",
		"correct the payload: what is wrong with it is told where the server knows",
		`The topic belongs to a kind of event whose payloads have a form, such as a
presence document, and this one has another; or the payload is not the UTF-8
text that its Payload Format Indicator announced.`,
	},
	{
		NoQuorum, "too few nodes answer",
		"try again later: nothing was done",
		`What is acknowledged is stored by a majority of the nodes. So many are down, or
cannot be reached, that there is none. Nothing was ordered, and nothing that was
acknowledged is lost; the same request succeeds when enough nodes are back.`,
	},
	{
		ClusterTLS, "the certificates for the cluster cannot be used",
		"make them with bellwire cert ca and bellwire cert node",
		`The nodes of a cluster know each other by certificates of the cluster's own
authority. --cluster-tls names a directory that holds ca.crt, node.crt and
node.key, and the certificate names the node: bellwire:node:NAME, NAME being
serve's --node. One of the files is missing, damaged, another node's or another
authority's, or the certificate has expired; the message says which. A running
node reads files that are renewed by itself.`,
	},
	{
		NoSuchNode, "the cluster has no node of this name",
		"bellwire cluster status lists its nodes",
		`Nodes are named by their names or ids. A node that was removed is a member no
more; one that is to come becomes one by being started with --join.`,
	},
	{
		WouldLoseQuorum, "the cluster would lose its quorum",
		"bring the other nodes back, or accept the risk with --force",
		`What is acknowledged is stored by a majority of the voters. Without this node too
few of those that are left would answer, and nothing could be published until
others come back. bellwire cluster status shows which are down.`,
	},
	{
		ClusterRefuses, "the cluster does not do this as things are",
		"the message says why; bellwire cluster status shows how things are",
		`The request was understood and nothing was changed: the node is the last one, has
no vote where one is needed, is not the one that can do it, or another change is
under way.`,
	},
	{
		ClusterSlow, "the cluster did not answer in time",
		"look at bellwire cluster status: it may have been done, or be done yet",
		`A change of the cluster is made by its leader and agreed by a majority. It took
longer than the request may, and its outcome is not known.`,
	},
	{
		Diverged, "the nodes do not hold the same state",
		"stop the node that differs, clear its data directory and have it join again; and please report it",
		`All nodes apply the same commands in the same order, so their states are equal at
each index. One that is not has a damaged disk, or found a fault of ours. What it
tells its clients cannot be relied on.`,
	},
	{
		NodeTooOld, "the cluster is ahead of this node's version",
		"start the node with the version that the others run; bellwire cluster status shows it",
		`A cluster's feature level rises when all of its nodes know the next, and does not
fall: what is stored and sent since then, this version would not understand. It
is not taken in, and nothing was changed.`,
	},
	{
		NodeRemoved, "this node was removed from its cluster",
		"have it join anew: an empty data directory, and --join with the address of a member",
		`An operator removed the node (bellwire cluster remove), or the others did after it
had been silent for --remove-dead-after. It ends, with exit code 7, and so does
each further start with its data directory: what is in there is no part of the
cluster any more, and a disk that may have forgotten its votes is another node.
What others have acknowledged is with the cluster. Whether the node was removed
by mistake is told by who did it, if that is known; bellwire cluster join NODE,
asked of a member, prints the commands by which it becomes one again, under the
same name if you like. A node that runs under a service manager is better not
started again after this exit code (systemd: RestartPreventExitStatus=7).`,
	},
	{
		NodeContested, "another cluster has a node by this one's name",
		"have it join that: bellwire cluster remove there, an empty data directory here, and --join",
		`The node has founded a cluster (--bootstrap, and no data), and a member of another
one, which has proved that it is of the same authority, looks for a node by this
one's name at this one's address. So its disk was emptied and it was started with
--bootstrap again, by a unit file that still says so. It would acknowledge what the
others never get; so it does not serve, sends its clients away, and ends with exit
code 7, and so does each further start with this data directory. If the others
were down it may have served until they came; what it acknowledged by then is in
its data directory alone: keep that until you know whether it matters (a copy can
be looked into by starting it elsewhere without --cluster).

To have the node back: bellwire cluster remove NODE, asked of another member; move
the data directory away; start the node with --join in place of --bootstrap, under
the same name. Are so many disks lost that the others have no quorum, and one of
them still has its data, that one is to go on: bellwire cluster recover.

If it is to be a cluster of its own, beside the other: give it another name at its
first start (--cluster-name), or another authority, or its node another name. To
go on with what is in the data directory: bellwire cluster recover --data DIR
--node NODE makes it a cluster of its own, and have the other cluster remove its
node of that name, or both will log that they look for each other. A cluster that
others have joined is not ended, and logs it as an error once a minute.`,
	},
	{
		Limit, "a limit of the server was reached",
		"send less at a time, or have the operator raise the limit",
		`The server bounds what a client may send, store or hold open, and this request
went past a bound. The message says which, where it can.`,
	},
	{
		Unclassified, "the operation failed",
		"the message is all we know; if it does not help, that is our fault: please report it",
		`An error reached the top of the program without having been given a code,
so there is no better advice than the message itself. Please report it with
the command line, so that it gets one.`,
	},
}
