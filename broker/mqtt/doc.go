// Package mqtt lets MQTT clients (3.1, 3.1.1 and 5) at a broker.Broker: it
// listens, speaks the protocol, and is the Sink through which each session's
// events reach its client.
//
// A connection is one goroutine that parks in a raw read without a buffer. When
// there is something, it takes a pooled buffer, parses each packet in place,
// hands it to the session, and flushes once everything that this made dirty,
// on this connection and on all others: a client gets one write for a batch,
// not one for each event. Writes never wait and no lock is held across one;
// while a socket is full a goroutine of its own writes to it, and what waits
// is bounded, so a client that does not read hurts nobody but itself.
//
// The way of a packet through the files, and who knows what:
//
//	server.go      listeners, the list of connections; admit.go: who gets in at all
//	listener.go    how an address is served; by what way a client has come
//	transport.go   bytes from and to the socket; transport_proxy.go, _tls.go and
//	               _ws.go: what may lie between; input.go: bytes to packets
//	conn.go        one connection: its state, its deadlines (wheel.go), its end
//	connect.go     CONNECT and CONNACK
//	publish.go     PUBLISH, PUBREL and the client's acknowledgements
//	acks.go        our acknowledgements, in the order of the publishes
//	subscribe.go   SUBSCRIBE and UNSUBSCRIBE; disconnect.go: the rest
//	deliver.go     events to frames, encoded once; flush.go: frames to the socket
//	walk.go        the guards: what every packet is held to before anybody believes
//	               it (parse.go, decode.go); codes.go: which reason code may stand where
//
// Decoding of CONNECT, SUBSCRIBE and UNSUBSCRIBE, and encoding of what is sent
// rarely, is left to the codec of mochi-mqtt, which this package alone knows.
// It accepts more than the standard does and has panicked on input, so our
// guards walk each packet first.
//
// Every bound is a field of Limits, every refusal and loss is counted in Stats.
package mqtt
