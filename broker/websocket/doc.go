// Package websocket is the server's side of the WebSocket protocol (RFC 6455), as
// MQTT uses it (5.0 6, 3.1.1 6): the handshake, and frames taken apart and put
// together. It is bytes in, bytes out: it reads no socket, keeps no buffer, starts
// no goroutine and knows no time. Whoever owns the connection does.
//
// That is why it is our own. The libraries there are own the connection: they
// read through a buffer of 4 KiB or more that each connection keeps while it is
// idle, a write waits until the socket has taken it, and a message is to be had
// whole or by a reader that blocks. A Decoder is some fifty bytes, takes frames
// apart in the buffer that they came in, and hands on what is there: a packet
// may lie in many frames and a frame hold many packets, and neither is ever
// gathered here. A frame to a client is a header in front of bytes that stay
// where they are.
//
// Extensions are not negotiated, permessage-deflate least of all: it would cost
// a window of memory for each connection, and MQTT's packets are small.
package websocket
