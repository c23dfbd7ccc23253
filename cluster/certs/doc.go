// Package certs makes and loads the certificates by which the nodes of a cluster
// know each other, and the TLS configurations that go with them.
//
// A cluster has an authority of its own (NewAuthority), and nothing else is
// trusted: neither the machine's roots nor another cluster's. The authority
// issues each node a certificate that names it (Authority.Issue). Nodes speak
// TLS 1.3, both sides show a certificate, and both check the other's.
//
//	CADIR/ca.crt    the authority's certificate, which everybody may read
//	CADIR/ca.key    its key: whoever has it can be any node. It need not be on any node
//
//	DIR/ca.crt      whom this node trusts: one certificate or several, in PEM
//	DIR/node.crt    this node's certificate
//	DIR/node.key    its key
//
// # Names
//
// Which node a certificate is for stands in it as a URI, bellwire:node:NAME; a
// certificate has exactly one of these. Host names and addresses in it are for
// other programs: addresses of nodes change, their names do not.
//
// # Rotation
//
// A running node reads the files again when they have changed (Credentials), so
// that certificates are renewed, and authorities replaced, without a restart.
// Connections that are open go on: a certificate is looked at when a connection
// begins. To replace an authority: put the old and the new one into every node's
// ca.crt, then give each node a certificate of the new one, then remove the old.
package certs
