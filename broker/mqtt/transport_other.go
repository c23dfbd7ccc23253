//go:build !linux

package mqtt

import "errors"

// newRawTransport has no implementation here: connections are carried as any
// other stream, correctly but at a greater cost.
func newRawTransport(socket) (transport, error) { return nil, errors.ErrUnsupported }
