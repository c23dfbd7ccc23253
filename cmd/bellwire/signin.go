package main

import (
	"errors"
	"fmt"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/authn"
	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/mqtt"
)

// badCredentials is broker.ErrBadCredentials with the reason, for the operator, that
// err of acl or authn says.
func badCredentials(err error) error {
	if _, ok := errors.AsType[*authn.Refusal](err); !ok {
		for reason, of := range map[string]error{"unknown_user": acl.ErrUnknownUser, "wrong_password": acl.ErrBadPassword, "wrong_token": acl.ErrBadToken} {
			if errors.Is(err, of) {
				err = &authn.Refusal{Reason: reason}
				break
			}
		}
	}
	return fmt.Errorf("%w: %w", broker.ErrBadCredentials, err)
}

// enhanced begins an exchange by a method of MQTT 5: see mqtt.Config.Enhanced. There is
// none where nobody could end it, nor where credentials are not looked at.
func (s *server) enhanced(method string, _ *mqtt.ConnInfo) mqtt.Exchange {
	a, ok := s.broker.Policy().(*authorizer)
	secret := s.broker.Secret()
	if !ok || method != authn.Scram || !a.policy.HasScram() || secret == nil || s.config.trust == trustNothing {
		return nil
	}
	key := secret.Derive("salts of who does not exist")
	return authn.NewScram(func(name string) (string, acl.Verifier, bool) { return a.policy.Verifier(name, key[:]) })
}
