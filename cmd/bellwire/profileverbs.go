package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bellwire/bellwire/authn"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/profiles/kind"
)

// Verbs about presence, messages, location and who may see them are ordinary
// clients: what they do, `pub` and `sub` can do by hand.

// connectFlags are the flags with which these verbs find the server, a part of
// pub's and sub's.
func (c *clientFlags) connectFlags(f *pflag.FlagSet) {
	c.props, c.version, c.qos = &properties{set: map[string]*packets.Properties{}}, "mqttv5", 1
	f.StringVarP(&c.host, "host", "h", "localhost", "`host` to connect to")
	f.IntVarP(&c.port, "port", "p", 0, "`port` to connect to (default 1883, with TLS 8883)")
	f.StringVarP(&c.url, "url", "L", "", "user, password, host and port at once: mqtt(s)://[user[:password]@]host[:port]")
	f.StringVarP(&c.id, "id", "i", "", "client `id` (default: the server chooses)")
	f.StringVarP(&c.username, "username", "u", "", "who you are: your `address`, such as bob@example.com")
	f.StringVarP(&c.password, "pw", "P", "", "`password` or token")
	c.scramFlag(f)
	f.StringVar(&c.caFile, "cafile", "", "TLS: `file` of PEM certificates to trust")
	f.StringVar(&c.cert, "cert", "", "TLS: `file` with this client's certificate")
	f.StringVar(&c.key, "key", "", "TLS: `file` with its private key")
	f.BoolVar(&c.osCerts, "tls-use-os-certs", false, "TLS: trust what the system trusts")
	f.DurationVar(&c.timeout, "timeout", 10*time.Second, "how long to wait for the connection and for answers to it")
	f.IntVarP(&c.keepAlive, "keepalive", "k", 60, "`seconds` of silence after which the server is asked whether it is there")
}

// addressOf reads an argument that names somebody; a bare name takes the domain
// of who asks.
func (c *clientFlags) addressOf(name string) (kind.Addr, error) {
	a, err := kind.ParseAddr(name)
	if err == nil {
		return a, nil
	}
	if c.username == "" && !authn.IsSigned([]byte(c.password)) {
		return a, usage("%q: %w", name, err)
	}
	me, err := c.self()
	if err != nil {
		return a, err
	}
	if a, err = kind.ParseAddr(name + "@" + me.Domain); err != nil {
		return a, usage("%q: %w", name, err)
	}
	return a, nil
}

// self returns who asks: by name, or by the claim sub of a signed token that comes without one,
// which the server checks.
func (c *clientFlags) self() (kind.Addr, error) {
	if c.username == "" {
		if authn.IsSigned([]byte(c.password)) {
			subject := authn.Claimed([]byte(c.password))
			a, err := kind.ParseAddr(subject)
			if err != nil {
				return a, fail(bw.Usage, "the token's sub, %.80q, is no address: it does not say who you are", subject).do("add -u NAME@DOMAIN, as the server names you")
			}
			return a, nil
		}
		return kind.Addr{}, fail(bw.Usage, "it is not said who you are").do("add -u NAME@DOMAIN, or a signed token as -P")
	}
	a, err := kind.ParseAddr(c.username)
	if err != nil {
		name, _, _ := strings.Cut(c.username, "@")
		return a, fail(bw.Usage, "-u %q is no address: %w", c.username, err).
			do("write your whole address, with the server's domain: -u %s@example.com", cmp.Or(name, "NAME"))
	}
	return a, nil
}

// A publication is what one of these verbs sends.
type publication struct {
	topic       string
	payload     []byte
	contentType string
	retain      bool
	user        map[string]string // User Properties
}

func (p *publication) packet() *paho.Publish {
	m := &paho.Publish{Topic: p.topic, QoS: 1, Retain: p.retain, Payload: p.payload, Properties: &paho.PublishProperties{ContentType: p.contentType}}
	for _, name := range []string{"evt-expires", "evt-etag", "evt-bind"} {
		if v := p.user[name]; v != "" {
			m.Properties.User.Add(name, v)
		}
	}
	return m
}

// send publishes one thing and returns when the server has it.
func (c *clientFlags) send(cmd *cobra.Command, what *publication) error {
	_, err := c.sendAnswered(cmd, what)
	return err
}

// sendAnswered is send that returns the User Properties of the acknowledgement.
func (c *clientFlags) sendAnswered(cmd *cobra.Command, what *publication) ([]packets.User, error) {
	to, packet, err := c.resolve(cmd.Flags())
	if err != nil {
		return nil, err
	}
	p, err := newPublisher(cmd.Context(), to, packet, 1, nil)
	if err != nil {
		return nil, err
	}
	failed := p.publish(cmd.Context(), what.packet())
	o, lost := p.finish(cmd.Context(), &paho.Disconnect{})
	if err := o.verdict(cmd.ErrOrStderr(), lost); err != nil {
		return nil, err
	}
	return o.answer, failed
}

// hold publishes something that lasts as long as the connection, and keeps that
// open until it is interrupted.
func (c *clientFlags) hold(cmd *cobra.Command, what *publication, told func()) error {
	to, packet, err := c.resolve(cmd.Flags())
	if err != nil {
		return err
	}
	p, err := newPublisher(cmd.Context(), to, packet, 1, nil)
	if err != nil {
		return err
	}
	if err = p.publish(cmd.Context(), what.packet()); err == nil {
		p.settle(cmd.Context())
		select {
		case <-p.client.Done():
		default:
			told()
		}
		select {
		case <-cmd.Context().Done():
		case <-p.client.Done():
		}
	}
	o, lost := p.finish(context.WithoutCancel(cmd.Context()), &paho.Disconnect{})
	if err := o.verdict(cmd.ErrOrStderr(), lost); err != nil {
		return err
	}
	return err
}

// watchFlags are those of the verbs that print what arrives.
type watchFlags struct {
	sub    subFlags
	output string
	tells  bool // how the subscriptions stand is told, on standard error
}

func (f *watchFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.Bool("help", false, "what this verb does")
	flags.SortFlags = false
	flags.StringVarP(&f.output, "output", "o", "", "`jsonl`: a JSON object on a line for each document")
	flags.IntVarP(&f.sub.count, "count", "C", 0, "end after so many `documents`")
	flags.IntVarP(&f.sub.wait, "wait", "W", 0, "end after so many `seconds`, with exit code 6")
	f.sub.client.connectFlags(flags)
	f.sub.randomFilter = 100
}

// watch prints what arrives on topics, each as line says.
func (f *watchFlags) watch(cmd *cobra.Command, topics []string, line formatter) error {
	to, packet, err := f.sub.client.resolve(cmd.Flags())
	if err != nil {
		return err
	}
	switch f.output {
	case "":
		line = safeLine(line)
	case "jsonl":
		line = jsonLine
	default:
		return usage("--output %q: want jsonl", f.output)
	}
	f.sub.topics = topics
	if f.tells {
		f.sub.standing = newStanding(topics, cmd.ErrOrStderr(), time.Now)
	}
	if err := f.sub.check(cmd.Flags()); err != nil {
		return err
	}
	s := &subscriber{
		flags: &f.sub, target: to, packet: packet, format: line,
		out: cmd.OutOrStdout(), notes: cmd.ErrOrStderr(), now: time.Now, done: make(chan error, 1),
	}
	return s.run(cmd.Context())
}

// columns begins a line about a resource: the time of day and whose it is.
func columns(b *bytes.Buffer, m *paho.Publish, at time.Time) {
	b.WriteString(at.Format(time.TimeOnly) + "  ")
	if t, err := kind.ParseTopic(m.Topic); err == nil {
		fmt.Fprintf(b, "%-24s  ", t.Addr)
		return
	}
	b.WriteString(m.Topic + "  ")
}

// everything returns the documents that are shown of a wildcard's resources,
// and when there are no more. It asks for its own policy after them: the server
// answers in that order, and always has an answer to that.
func (c *clientFlags) everything(cmd *cobra.Command, filter, of string, each func(*paho.Publish)) error {
	to, packet, err := c.resolve(cmd.Flags())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
	defer cancel()
	last := "$me/policy/" + of
	done := make(chan struct{})
	conn, err := connect(ctx, to, packet, state.NewInMemory(), func(p paho.PublishReceived) (bool, error) {
		switch {
		case p.Packet.Topic == last:
			close(done)
		default:
			each(p.Packet)
		}
		return true, nil
	}, nil)
	if err != nil {
		return err
	}
	defer conn.close(ctx, &paho.Disconnect{})
	for _, f := range []string{filter, last} {
		answer, err := conn.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: f, QoS: 1}}})
		if answer == nil {
			return noAnswer(conn, "SUBSCRIBE", err)
		}
		if code := answer.Reasons[0]; code >= 0x80 {
			return refusal("subscribe to "+f+" refused", code, answer.Properties.ReasonString)
		}
	}
	select {
	case <-done:
		return nil
	case lost := <-conn.lost:
		return lost
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fail(bw.NoAnswer, "the documents did not come within %s", c.timeout)
		}
		return ctx.Err()
	}
}

// secondsUntil reads when something is to end, the value of a flag: a duration, a time
// of day, or an instant.
func secondsUntil(flag, text string, now time.Time) (string, error) {
	if d, err := time.ParseDuration(text); err == nil && d >= time.Second {
		return strconv.Itoa(int(d.Seconds())), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		if at, err = time.ParseInLocation("15:04", text, now.Location()); err != nil {
			return "", usage("%s %q: want 90m, 13:00 or 2026-03-09T13:00:00Z", flag, text)
		}
		at = time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), 0, 0, now.Location())
		if !at.After(now) {
			at = at.AddDate(0, 0, 1)
		}
	}
	if !at.After(now) {
		return "", usage("%s %s is over", flag, text)
	}
	return strconv.Itoa(int(at.Sub(now).Round(time.Second).Seconds())), nil
}

// mustJSON encodes what this program made itself.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// calledFile is what messages call a file that readAll has read.
func calledFile(name string) string {
	if name == "-" {
		return "standard input"
	}
	return name
}

// readAll reads a file, or standard input for "-".
func readAll(name string, stdin io.Reader) ([]byte, error) {
	if name == "-" {
		b, err := io.ReadAll(io.LimitReader(stdin, maxMessage+1))
		if err != nil {
			return nil, fail(bw.File, "standard input: %w", err)
		}
		return b, nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fail(bw.File, "cannot read %s: %w", name, rootCause(err))
	}
	return b, nil
}
