// Package mqtttest is a small MQTT client for tests. It speaks 3.1.1 and 5
// over any net.Conn, with a codec of its own, so that a fault shared by the
// broker and its library cannot hide.
//
// What it sends is up to the test: every message can be written field by
// field, cut short, or replaced by Raw bytes, legal or not. What it receives it
// judges strictly: a packet from the broker that breaks the standard (flags,
// lengths, properties and reason codes that the packet may not carry, invalid
// UTF-8) is an error wherever it turns up, so each test of behaviour is a test
// of the broker's encoder as well.
//
// Nothing here sleeps. A client waits for a packet with a deadline (Patience);
// that something does not come is shown by a barrier: Quiet sends PINGREQ and
// wants PINGRESP to be the next packet.
//
// Conn is the connection without a test, for goroutines that make load, with
// errors returned. Client wraps it for a test's own goroutine and ends the
// test, naming what came, when the broker says something else than expected.
package mqtttest
