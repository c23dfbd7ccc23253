// Package blackbox holds tests only: they build the binary, start it, and speak
// to it over real sockets as its users do. What they assert is what stands on
// the wire, on the HTTP side, and in the exit code; they import nothing of the
// broker. (cluster/certs makes what bellwire cert does not: an expired certificate.)
//
// A test named TestMQTT09… shows the behaviour that an MQTT broker must have
// under that number: acknowledgements, sessions, wills, topics, access. The
// others show what is promised beyond the protocol: what survives kill -9, a
// power cut or a full disk, what passes at the edge of a time window, and that
// other people's clients work.
//
// Tests of plain protocol share one server and can be aimed at any running
// broker: BELLWIRE_BLACKBOX_TARGET=127.0.0.1:1883 go test ./blackbox. The others
// start a server of their own in a directory of their own, and are skipped
// then. BELLWIRE_BINARY names a binary that is already built.
// BELLWIRE_SOAK (package effort) has many seeds where the normal run has a few, and the
// load of a cluster at 5,000 events a second where it has 500; BELLWIRE_RATE is another
// rate, for a machine that has other work: if it is lower, times are told, and not held
// to what is promised.
package blackbox
