// Package broker is the life of an event: publish, order, queue, deliver.
//
// Everything that must survive or be agreed is a command in one replicated
// Log; the Machine applies commands and is the only thing that changes state;
// applying yields effects that each node carries out for the clients it holds.
// QoS 0 events that are not retained need no survival and go from the
// publisher's goroutine to the subscribers' output directly.
//
// The package speaks no protocol: broker/mqtt drives it and is its Sink.
package broker
