package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
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
			return s.unlessBridge(s.judge(l))
		}
		in, _ := s.broker.Settings()
		principal, err := acl.ParseAddress(l.User, in.Domain)
		if err != nil {
			return mqtt.Identity{}, badCredentials(&authn.Refusal{Reason: "unknown_user", Detail: err.Error()})
		}
		return mqtt.Identity{Principal: principal}, nil
	}
}

// judge returns who a login proves to be under the policy in force, by a way that clients
// of its listener may sign in by. Who shows a certificate that counts is its principal;
// a password beside it has to prove the same, and a user name to name it.
func (s *server) judge(l mqtt.Login) (mqtt.Identity, error) {
	a, ok := s.broker.Policy().(*authorizer)
	if !ok {
		return mqtt.Identity{}, broker.ErrBadCredentials
	}
	by := a.policy.LoginAt(l.From.Listener)
	if l.From.Certificate() == nil || !by.Allows(acl.ByCertificate) {
		return s.judgeSecret(a.policy, by, l)
	}
	who, err := judgeCertificate(a.policy, by, l)
	if err != nil {
		return mqtt.Identity{}, err
	}
	shown := who
	if len(l.Password) > 0 {
		if shown, err = s.judgeSecret(a.policy, by, l); err != nil {
			return mqtt.Identity{}, err
		}
	} else if l.User != "" {
		if shown.Principal, err = acl.ParseAddress(l.User, a.policy.Domain()); err != nil {
			shown.Principal = ""
		}
	}
	return beside(who, shown)
}

// judgeCertificate returns who the certificate of a login is of. Its client id may have to
// be of that principal, too.
func judgeCertificate(p *acl.Policy, by *acl.Login, l mqtt.Login) (mqtt.Identity, error) {
	cert := l.From.Certificate()
	principal, err := authn.Certified(cert, by, p.Domain())
	if err != nil {
		return mqtt.Identity{}, badCredentials(err)
	}
	local, _, _ := strings.Cut(principal, "@")
	if by.BindID && l.Client != principal && l.Client != local {
		return mqtt.Identity{}, badCredentials(&authn.Refusal{Reason: "client_id", Detail: "the certificate is of " + principal})
	}
	return mqtt.Identity{Principal: principal, Until: cert.NotAfter, Way: acl.ByCertificate}, nil
}

// beside returns what is proved by what was shown beside a certificate: the same, for as
// long as both last.
func beside(certified, shown mqtt.Identity) (mqtt.Identity, error) {
	if shown.Principal != certified.Principal {
		return mqtt.Identity{}, badCredentials(&authn.Refusal{Reason: "other_principal", Detail: "the certificate is of " + certified.Principal})
	}
	if shown.Until.IsZero() || certified.Until.Before(shown.Until) {
		shown.Until = certified.Until
	}
	return shown, nil
}

// proved is judge for who has proved to be principal by SCRAM.
func (s *server) proved(l mqtt.Login, _, principal string) (mqtt.Identity, error) {
	a, ok := s.broker.Policy().(*authorizer)
	if !ok {
		return mqtt.Identity{}, broker.ErrBadCredentials
	}
	who := mqtt.Identity{Principal: principal, Way: acl.ByScram}
	by := a.policy.LoginAt(l.From.Listener)
	if l.From.Certificate() == nil || !by.Allows(acl.ByCertificate) {
		return s.unlessBridge(who, nil)
	}
	certified, err := judgeCertificate(a.policy, by, l)
	if err != nil {
		return mqtt.Identity{}, err
	}
	return s.unlessBridge(beside(certified, who))
}

// unlessBridge is who, unless that is whom a bridge of this server is: it comes by a door of
// its own and proves nothing, so its rights would be those of whoever lets people prove names of its
// domain, which a tenant, an issuer or an authority may. Only the operator's file itself can
// give somebody else a password for it.
func (s *server) unlessBridge(who mqtt.Identity, err error) (mqtt.Identity, error) {
	owner := s.bridges.ownerOf(who.Principal)
	if err != nil || owner == "" {
		return who, err
	}
	secret := who.Way == acl.ByPassword || who.Way == acl.ByToken || who.Way == acl.ByScram
	if a, ok := s.broker.Policy().(*authorizer); ok && secret && a.policy.UserOf(who.Principal) == "" {
		return who, nil
	}
	return mqtt.Identity{}, badCredentials(&authn.Refusal{Reason: "bridge", Detail: who.Principal + " is " + owner + ": give the bridge another principal, or this client"})
}

// mayStay says whether a client that came in could do so under a policy by the same way: its
// listener has it still, and a certificate that counts there is its own. Whoever came in
// without proving anything may, but with such a certificate would be somebody.
func (s *server) mayStay(policy broker.Authorizer, l mqtt.Login, who mqtt.Identity) bool {
	a, ok := policy.(*authorizer)
	if !ok || s.config.trust != trustNobody && who.Way == "" {
		return true
	}
	by := a.policy.LoginAt(l.From.Listener)
	certified := l.From.Certificate() != nil && by.Allows(acl.ByCertificate)
	switch {
	case who.Principal == "":
		return !certified
	case !by.Allows(who.Way):
		return false
	case !certified:
		return true
	}
	is, err := judgeCertificate(a.policy, by, l)
	return err == nil && is.Principal == who.Principal
}

// certified says whether certificates count at a listener.
func (s *server) certified(listener string) bool {
	a, ok := s.broker.Policy().(*authorizer)
	return ok && s.config.trust == trustNobody && a.policy.LoginAt(listener).Allows(acl.ByCertificate)
}

// judgeSecret is judge for user name and password, or a signed token. A way that is not
// allowed is refused after it was looked at, so that it takes as long.
func (s *server) judgeSecret(p *acl.Policy, by *acl.Login, l mqtt.Login) (who mqtt.Identity, err error) {
	way := acl.BySigned
	if len(p.Issuers()) > 0 && authn.IsSigned(l.Password) {
		who, err = s.judgeSigned(p, l)
	} else if who.Principal, err = s.broker.Authenticate(l.User, l.Password); err == nil {
		way = p.ProvedBy(who.Principal)
	}
	if err == nil && !by.Allows(way) {
		return mqtt.Identity{}, badCredentials(&authn.Refusal{Reason: "way", Detail: "clients of listener " + l.From.Listener + " may not sign in by " + way})
	}
	who.Way = way
	return who, err
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
func (s *server) enhanced(method string, from *mqtt.ConnInfo) mqtt.Exchange {
	a, ok := s.broker.Policy().(*authorizer)
	secret := s.broker.Secret()
	if !ok || method != authn.Scram || !a.policy.HasScram() || secret == nil || s.config.trust == trustNothing || !a.policy.LoginAt(from.Listener).Allows(acl.ByScram) {
		return nil
	}
	key := secret.Derive("salts of who does not exist")
	return authn.NewScram(func(name string) (string, acl.Verifier, bool) { return a.policy.Verifier(name, key[:]) })
}
