package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
)

// administer answers what an administrator asks for over MQTT, as the HTTP side does.
func (s *server) administer(ctx context.Context, principal, topic string, request []byte) (reply []byte, why error) {
	h := s.handler.Load()
	if h == nil {
		return nil, broker.ErrNoCommit // it is about to serve
	}
	served := api.Serve(ctx, *h, principal, topic, request)
	return served.Reply, admRefusal(served)
}

// admRefusal is what the acknowledgement of a request says of its outcome, nil for success.
func admRefusal(served api.Served) error {
	var cause error
	switch served.Status {
	case http.StatusUnauthorized, http.StatusForbidden: // as whoever may not
	case http.StatusConflict, http.StatusPreconditionFailed, http.StatusNotFound:
		cause = broker.ErrCondition
	case http.StatusTooManyRequests, http.StatusRequestEntityTooLarge:
		cause = broker.ErrQuota
	case http.StatusServiceUnavailable:
		return fmt.Errorf("%w: %s", broker.ErrNoCommit, served.Detail)
	case http.StatusGatewayTimeout:
		return fmt.Errorf("%w: %s", broker.ErrUnknown, served.Detail)
	default:
		if served.Status < 300 {
			return nil
		}
		cause = broker.ErrPayload
	}
	return &broker.Refusal{Cause: cause, Reason: served.Detail}
}
