package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/authn"
	"github.com/bellwire/bellwire/bw"
)

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Signed tokens (JWT): make them, and see why one is refused",
	}
	cmd.AddCommand(tokenKeyCommand(), tokenCreateCommand(), tokenVerifyCommand())
	return cmd
}

// What token key writes.
const (
	signingKeyFile = "signing-key.json"
	keySetFile     = "jwks.json"
)

func tokenKeyCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "key",
		Short: "A key pair to sign tokens with, for who has no identity provider",
		Long: `Writes signing-key.json, with which tokens are signed and which nobody else may have,
and jwks.json, the key set that an issuer of the policy names as its keys. Files that
are there already are not overwritten.`,
		Example: `  bellwire token key --out /etc/bellwire`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			private, set, err := authn.NewSigningKey()
			if err != nil {
				return err
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fail(bw.File, "%w", err)
			}
			for _, f := range []struct {
				name string
				data []byte
				mode os.FileMode
			}{{signingKeyFile, private, 0o600}, {keySetFile, set, 0o644}} {
				path := filepath.Join(dir, f.name)
				if err := writeNewFile(path, f.data, f.mode); err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), path)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "out", ".", "`directory` to write to, made if missing")
	return cmd
}

// writeNewFile writes a file that is not there yet.
func writeNewFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, os.ErrExist) {
		return fail(bw.WouldOverwrite, "%s exists", path).do("move it away, or give another --out")
	}
	if err != nil {
		return fail(bw.File, "%w", err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		return fail(bw.File, "%w", err)
	}
	return nil
}

func tokenCreateCommand() *cobra.Command {
	var key, issuer, subject, at string
	var audience, extra []string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "create",
		Short: "A token signed by a key of token key",
		Long: `Prints a signed token: a client gives it as its MQTT password, without a user name or
with the one that the token is of, or over HTTP as Authorization: Bearer. It is
accepted until it expires, and what is connected with it is disconnected then.`,
		Example: `  bellwire token create --key signing-key.json --issuer plant --audience bellwire --subject thermo-17 --ttl 24h`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			private, err := readAtMost(key, 64<<10)
			if err != nil {
				return fail(bw.File, "%w", err).do("make one with: bellwire token key")
			}
			if issuer == "" || subject == "" || len(audience) == 0 || ttl <= 0 {
				return fail(bw.Usage, "a token needs --issuer, --audience, --subject and a --ttl above zero").do("name issuer and audience as the policy does")
			}
			now, err := instantOr(at)
			if err != nil {
				return err
			}
			claims := map[string]any{"iss": issuer, "aud": audience, "sub": subject, "iat": now.Unix(), "exp": now.Add(ttl).Unix()}
			for _, c := range extra {
				name, value, ok := strings.Cut(c, "=")
				if !ok {
					return fail(bw.Usage, "--claim %q has no =", c).do("--claim name=value")
				}
				claims[name] = value
			}
			token, err := authn.Sign(private, claims)
			if err != nil {
				return fail(bw.Usage, "%w", err).do("make a key with: bellwire token key")
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&key, "key", signingKeyFile, "`file` of the signing key")
	flags.StringVar(&issuer, "issuer", "", "who issues it: issuer in the policy")
	flags.StringSliceVar(&audience, "audience", nil, "whom it is for: one of audience in the policy")
	flags.StringVar(&subject, "subject", "", "whom it is of, an address or a bare name")
	flags.StringArrayVar(&extra, "claim", nil, "a further claim, name=value; may be repeated")
	flags.DurationVar(&ttl, "ttl", time.Hour, "for how long")
	flags.StringVar(&at, "at", "", "RFC 3339 instant from which on; now when empty")
	return cmd
}

// instantOr returns the RFC 3339 instant that at says, now if it is empty.
func instantOr(at string) (time.Time, error) {
	if at == "" {
		return time.Now(), nil
	}
	t, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return t, fail(bw.Usage, "--at %q is no RFC 3339 time", at).do("like 2026-03-09T16:59:00Z")
	}
	return t, nil
}

// A tokenAnswer is what token verify has found out.
type tokenAnswer struct {
	Allow     bool           `json:"allow"`
	Principal string         `json:"principal,omitempty"`
	Issuer    string         `json:"issuer,omitempty"`
	Until     *time.Time     `json:"until,omitempty"`
	Reason    string         `json:"reason,omitempty"` // as the metric has it
	Detail    string         `json:"detail,omitempty"`
	Header    map[string]any `json:"header,omitempty"` // as they stand in the token: not to be believed if it is refused
	Claims    map[string]any `json:"claims,omitempty"`
}

func tokenVerifyCommand() *cobra.Command {
	var policyFile, domain, user, at, output string
	cmd := &cobra.Command{
		Use:   "verify [TOKEN]",
		Short: "What a server would do with a token, and why",
		Long: `Checks a signed token, the argument or standard input, as a server with that policy
does: it fetches the issuer's keys, looks at signature, issuer, audience and times, and
says whom the token proves or why it is refused. Exit code 4 means refused.`,
		Example: `  bellwire token verify --policy policy.yaml --domain example.com -o json < token.txt
  bellwire token verify --policy policy.yaml --user ana --at 2026-03-09T16:59:00Z "$TOKEN"`,
		Args: someArgs(0, 1, "the token, or none to read it from standard input"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			now, err := instantOr(at)
			if err != nil {
				return err
			}
			data, err := readPolicyData(policyFile)
			if err != nil {
				return err
			}
			policy, err := parsePolicy(policyFile, data, domain)
			if err != nil {
				return err
			}
			token, err := tokenOf(cmd.InOrStdin(), args)
			if err != nil {
				return err
			}
			if len(policy.Issuers()) == 0 {
				return fail(bw.Usage, "%s has no issuers", policyFile).do("add an entry to issuers: docs/authentication.md")
			}
			keys := authn.NewKeys(time.Now, slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)))
			defer keys.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), signedPatience)
			defer cancel()
			var a tokenAnswer
			a.Header, a.Claims, _ = authn.Inspect(token)
			proof, err := keys.Verify(ctx, policy, user, token, now)
			if refused, ok := errors.AsType[*authn.Refusal](err); ok {
				a.Reason, a.Detail = refused.Reason, refused.Detail
			} else if err != nil {
				return fail(bw.Unreachable, "%w", err).do("see that keys in issuers names where they are, from every node")
			} else {
				a.Allow, a.Principal, a.Issuer, a.Until = true, proof.Principal, proof.Issuer, &proof.Until
			}
			if err := a.write(cmd.OutOrStdout(), output); err != nil {
				return err
			}
			if !a.Allow {
				return fail(bw.BadCredentials, "the token is refused: %s", a.Reason).do("see what it has, above, and docs/authentication.md")
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&policyFile, "policy", "policy.yaml", "policy `file`")
	flags.StringVar(&domain, "domain", "", "domain of bare names, as of the server")
	flags.StringVar(&user, "user", "", "user name that the client gives with it")
	flags.StringVar(&at, "at", "", "RFC 3339 instant to check it at; now when empty")
	addOutput(cmd, &output)
	return cmd
}

// tokenOf returns the token that is the argument, or all of in.
func tokenOf(in io.Reader, args []string) ([]byte, error) {
	if len(args) == 1 {
		return []byte(args[0]), nil
	}
	text, err := io.ReadAll(io.LimitReader(in, maxPassword+1))
	if err != nil {
		return nil, fail(bw.Usage, "cannot read the token from standard input: %w", err)
	}
	return bytes.TrimSpace(text), nil
}

func (a *tokenAnswer) write(w io.Writer, output string) error {
	if output == "json" {
		return writeJSON(w, a)
	}
	// Whoever made the token has chosen what it says, and it may be refused for that.
	line := func(name, value string) {
		fmt.Fprintf(w, "  %-10s %s\n", safe(fmt.Sprintf("%.200s", name)), safe(value))
	}
	if a.Allow {
		fmt.Fprintln(w, "ALLOW")
		line("principal", a.Principal)
		line("until", a.Until.UTC().Format(time.RFC3339))
	} else {
		fmt.Fprintln(w, "DENY")
		line("reason", a.Reason)
		line("because", a.Detail)
	}
	for _, part := range []map[string]any{a.Header, a.Claims} {
		var names []string
		for name := range part {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			value := part[name]
			if at, ok := value.(float64); ok && slices.Contains([]string{"exp", "nbf", "iat"}, name) && at > 0 && at < 1<<38 {
				value = time.Unix(int64(at), 0).UTC().Format(time.RFC3339)
			}
			line(name, fmt.Sprintf("%.200v", value))
		}
	}
	return nil
}
