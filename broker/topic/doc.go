// Package topic knows what names and filters are, which filter matches which
// name, and who is to be told about a name: it holds the rules of MQTT's topics
// (5, section 4.7 and 4.8; 3.1.1, section 4.7) and nothing of packets, sessions
// or permission.
package topic
