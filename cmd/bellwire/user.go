package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/authn"
	"github.com/bellwire/bellwire/bw"
)

func userCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Users of a policy file, and their credentials",
	}
	cmd.AddCommand(userAddCommand(), userRemoveCommand(), userListCommand(), userHashCommand(), userTokenCommand())
	return cmd
}

// maxPassword is what MQTT can carry (5, 3.1.3.6), in bytes.
const maxPassword = 65535

func userHashCommand() *cobra.Command {
	var token, scram bool
	var iterations int
	cmd := &cobra.Command{
		Use:        "hash",
		SuggestFor: []string{"passwd", "password"},
		Short:      "The hash of a password, for password_hash",
		Long: `Reads a password and prints its argon2id hash for password_hash in a policy
file. From a terminal it is asked for twice and not shown; else it is standard
input without the line's end.

With --token it is a device's token, and what is printed is for token_sha256.
Only random tokens belong there (bellwire user token makes one): a token that
a person thought of can be guessed from its hash.

With --scram what is printed is for scram_sha256: the verifier of a password, or of a
token, that is proved by SCRAM-SHA-256 and never sent. Give all users the same number
of iterations: everybody who begins to sign in is told it. A client hashes as often
whenever it connects, so that small devices may take fewer, 4096 at least.`,
		Example: `  bellwire user hash                               # asks for it
  printf %s "$PASSWORD" | bellwire user hash
  bellwire user hash --scram --iterations 4096`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := notBoth(cmd, "token", "scram"); err != nil {
				return err
			}
			what := "password"
			if token {
				what = "token"
			}
			secret, err := readSecret(cmd.InOrStdin(), cmd.ErrOrStderr(), what)
			if err != nil {
				return err
			}
			hash, err := hashSecret(secret, token, scram, iterations)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), hash)
			return err
		},
	}
	cmd.Flags().BoolVar(&token, "token", false, "it is a token: print its SHA-256")
	cmd.Flags().BoolVar(&scram, "scram", false, "print its verifier for SCRAM-SHA-256")
	cmd.Flags().IntVar(&iterations, "iterations", authn.ScramIterations, "of --scram: how often it is hashed")
	return cmd
}

// hashSecret returns what a policy keeps of a secret.
func hashSecret(secret []byte, token, scram bool, iterations int) (string, error) {
	switch {
	case scram && (iterations < acl.MinIterations || iterations > acl.MaxIterations):
		return "", fail(bw.Usage, "--iterations %d, want %d to %d", iterations, acl.MinIterations, acl.MaxIterations)
	case scram:
		verifier, err := authn.HashScram(secret, iterations, rand.Reader)
		if err != nil {
			return "", fail(bw.Usage, "no verifier can be made of it: %w", err)
		}
		return verifier, nil
	case token:
		return acl.HashToken(secret), nil
	case acl.IsToken(secret):
		return "", fail(bw.Usage, "it is a token, and no server takes a token for a password").do("bellwire user hash --token")
	}
	return acl.HashPassword(secret, rand.Reader)
}

func userTokenCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "token",
		Short: "A new random token for a device, and its hash",
		Long: `Makes a token of 256 random bits. The device uses it as its MQTT password; the
policy file holds only its hash, as token_sha256. It is shown once.`,
		Example: `  bellwire user token
  bellwire user token -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			token, err := acl.NewToken(rand.Reader)
			if err != nil {
				return err
			}
			made := struct {
				Token string `json:"token"`
				Hash  string `json:"token_sha256"`
			}{Token: token}
			made.Hash = acl.HashToken([]byte(made.Token))
			if output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(made)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "token         %s\ntoken_sha256  %s\n", made.Token, made.Hash)
			return err
		},
	}
	addOutput(cmd, &output)
	return cmd
}

// readSecret reads a password or token (what) from in: by asking if that is a
// terminal, else all of it but the end of its one line.
func readSecret(in io.Reader, stderr io.Writer, what string) ([]byte, error) {
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return askSecret(int(f.Fd()), stderr, what)
	}
	secret, err := io.ReadAll(io.LimitReader(in, maxPassword+3))
	if err != nil {
		return nil, fail(bw.Usage, "cannot read the %s from standard input: %w", what, err)
	}
	secret = bytes.TrimSuffix(bytes.TrimSuffix(secret, []byte("\n")), []byte("\r"))
	switch {
	case bytes.ContainsAny(secret, "\r\n"):
		return nil, fail(bw.Usage, "standard input has more than one line").do("give it the %s alone", what)
	case len(secret) > maxPassword:
		return nil, fail(bw.Usage, "the %s is longer than MQTT can carry", what).do("use at most %d bytes", maxPassword)
	}
	return secret, checkSecret(secret, what)
}

// askSecret asks for what twice, without showing it.
func askSecret(fd int, stderr io.Writer, what string) ([]byte, error) {
	ask := func(prompt string) ([]byte, error) {
		fmt.Fprint(stderr, prompt)
		secret, err := term.ReadPassword(fd)
		fmt.Fprintln(stderr)
		if err != nil {
			return nil, fail(bw.Usage, "cannot read the %s from the terminal: %w", what, err)
		}
		return secret, nil
	}
	first, err := ask(what + ": ")
	if err != nil {
		return nil, err
	}
	again, err := ask("again: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, again) {
		return nil, fail(bw.Usage, "the two are not the same").do("try again")
	}
	return first, checkSecret(first, what)
}

func checkSecret(secret []byte, what string) error {
	if len(secret) == 0 {
		return fail(bw.Usage, "the %s is empty", what).do("give one on standard input, or at the terminal")
	}
	return nil
}
