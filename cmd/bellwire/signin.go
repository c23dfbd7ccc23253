package main

import (
	"context"
	"errors"
	"fmt"
	"time"

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

// identify returns how credentials are checked: by the policy in force, or as the
// configuration says; nil if they are not looked at.
func (s *server) identify() func(l mqtt.Login) (mqtt.Identity, error) {
	trust := s.config.trust
	if trust == trustNothing {
		return nil
	}
	return func(l mqtt.Login) (mqtt.Identity, error) {
		if trust == trustNobody || trust == trustBareNames && len(l.Password) > 0 {
			return s.judge(l)
		}
		in, _ := s.broker.Settings()
		principal, err := acl.ParseAddress(l.User, in.Domain)
		if err != nil {
			return mqtt.Identity{}, badCredentials(&authn.Refusal{Reason: "unknown_user", Detail: err.Error()})
		}
		return mqtt.Identity{Principal: principal}, nil
	}
}

// judge returns who a login proves to be under the policy in force.
func (s *server) judge(l mqtt.Login) (mqtt.Identity, error) {
	a, ok := s.broker.Policy().(*authorizer)
	if ok && len(a.policy.Issuers()) > 0 && authn.IsSigned(l.Password) {
		return s.judgeSigned(a.policy, l)
	}
	principal, err := s.broker.Authenticate(l.User, l.Password)
	return mqtt.Identity{Principal: principal}, err
}

// signedPatience is how long a login may wait for an issuer's keys.
const signedPatience = 6 * time.Second

// judgeSigned is judge for a signed token.
func (s *server) judgeSigned(p *acl.Policy, l mqtt.Login) (mqtt.Identity, error) {
	ctx, cancel := context.WithTimeout(context.Background(), signedPatience)
	defer cancel()
	proof, err := s.keys.Verify(ctx, p, l.User, l.Password, s.now())
	if refused, ok := errors.AsType[*authn.Refusal](err); ok {
		return mqtt.Identity{}, badCredentials(refused)
	}
	if err != nil {
		return mqtt.Identity{}, fmt.Errorf("%w: %w", mqtt.ErrUnavailable, err)
	}
	return mqtt.Identity{Principal: proof.Principal, Until: proof.Until}, nil
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
