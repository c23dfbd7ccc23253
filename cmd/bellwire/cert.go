package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/cluster/certs"
)

func certCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Certificates by which the nodes of a cluster know each other",
	}
	cmd.AddCommand(certCACommand(), certNodeCommand())
	return cmd
}

// certFlags are those of both verbs.
type certFlags struct {
	out, output string
	days        int
	force       bool
}

func (f *certFlags) register(cmd *cobra.Command, what string, days int) {
	flags := cmd.Flags()
	flags.StringVar(&f.out, "out", "", "`directory` for the files, made if missing")
	flags.IntVar(&f.days, "days", 0, fmt.Sprintf("how many days %s is valid; 0: %d", what, days))
	flags.BoolVar(&f.force, "force", false, "overwrite files that exist")
	addOutput(cmd, &f.output)
}

// mostDays keeps ends of certificates within what their form can say.
const mostDays = 100 * 365

func (f *certFlags) check(verb string) (wrong faults) {
	wrong.add(checkOutput(f.output))
	if f.out == "" {
		wrong.add(fail(bw.Usage, "%s needs --out, the directory for the files", verb).do("%s --out DIR", verb))
	}
	if f.days < 0 || f.days > mostDays {
		wrong.add(fail(bw.Usage, "--days %d is not between 1 and %d", f.days, mostDays).do("leave it out, or give days like --days 365"))
	}
	return wrong
}

func (f *certFlags) life() time.Duration { return time.Duration(f.days) * 24 * time.Hour }

// A madeCert is what is said of a certificate that was made.
type madeCert struct {
	Name      string    `json:"name"`
	Authority string    `json:"authority,omitempty"`
	Expires   time.Time `json:"expires"`
	Files     []string  `json:"files"`
}

func (f *certFlags) say(cmd *cobra.Command, made madeCert, names ...string) error {
	for _, name := range names {
		made.Files = append(made.Files, filepath.Join(f.out, name))
	}
	made.Expires = made.Expires.UTC()
	if f.output == "json" {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(made)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s   expires %s\n", made.Name, made.Expires.Format(time.DateOnly))
	for _, name := range made.Files {
		if err == nil {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "  %s\n", name)
		}
	}
	return err
}

func certCACommand() *cobra.Command {
	var f certFlags
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Make the authority of a cluster",
		Long: `Makes the authority that issues the certificates of one cluster's nodes:
ca.crt and ca.key in --out. Nodes trust this authority and no other.

Whoever has ca.key can make a certificate for any node. Nodes do not need it:
keep it where you make certificates, and nowhere else.`,
		Example: `  bellwire cert ca --out ./ca`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check("bellwire cert ca").err(); err != nil {
				return err
			}
			a, err := certs.NewAuthority(time.Now(), f.life())
			if err != nil {
				return err
			}
			if err := certs.SaveAuthority(f.out, a, f.force); err != nil {
				return f.saveFault(err, "every node's certificate has to be made again")
			}
			return f.say(cmd, madeCert{Name: a.Name(), Expires: a.Expires()}, certs.AuthorityCert, certs.AuthorityKey)
		},
	}
	f.register(cmd, "the authority", int(certs.AuthorityLife/(24*time.Hour)))
	return cmd
}

func certNodeCommand() *cobra.Command {
	var f certFlags
	var ca, name string
	var hosts []string
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Make a node's certificate",
		Long: `Makes what a node needs for bellwire serve --cluster-tls: node.crt, node.key and
the authority's ca.crt, in --out. The certificate is for the node called --name,
which must be the --node that it is served as: nodes know each other by it, and
not by addresses. --host adds host names and addresses for other programs.

With --force it renews a certificate. A running node reads the new one by
itself, and shows it from its next connection on.`,
		Example: `  bellwire cert node --ca ./ca --name n1 --out ./n1/tls
  bellwire cert node --ca ./ca --name n1 --out ./n1/tls --force --days 90`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			wrong := f.check("bellwire cert node")
			if err := certs.CheckName(name); name == "" {
				wrong.add(fail(bw.Usage, "bellwire cert node needs --name, the node that it is for").do("--name n1, the same as serve's --node"))
			} else if err != nil {
				wrong.add(fail(bw.Usage, "--name: %w", err).do("give the node's name, the same as serve's --node"))
			}
			wrong.add(checkHosts(hosts))
			if ca == "" {
				ca = f.out
			}
			if err := wrong.err(); err != nil {
				return err
			}
			a, err := certs.LoadAuthority(ca)
			if err != nil {
				return fail(bw.ClusterTLS, "no authority in %s: %w", ca, err).do("make one with bellwire cert ca --out DIR, and give --ca DIR")
			}
			pair, err := a.Issue(name, hosts, time.Now(), f.life())
			if errors.Is(err, certs.ErrOutlives) {
				return fail(bw.Usage, "--days %d is too long: %w", f.days, err).do("give fewer days, or make a new authority with bellwire cert ca")
			}
			if err != nil {
				return err
			}
			if err := certs.SaveNode(f.out, a, pair, f.force); err != nil {
				return f.saveFault(err, "a node that uses them shows the new certificate from its next connection on")
			}
			return f.say(cmd, madeCert{Name: name, Authority: a.Name(), Expires: pair.Expires}, certs.NodeCert, certs.NodeKey, certs.AuthorityCert)
		},
	}
	f.register(cmd, "the certificate", int(certs.NodeLife/(24*time.Hour)))
	cmd.Flags().StringVar(&ca, "ca", "", "`directory` of the authority; --out if not given")
	cmd.Flags().StringVar(&name, "name", "", "`name` of the node, the same as serve's --node")
	cmd.Flags().StringSliceVar(&hosts, "host", nil, "host `name` or address for other programs; may be repeated")
	return cmd
}

// saveFault says that files exist, and what would become of whom if they were
// overwritten; or that they could not be written.
func (f *certFlags) saveFault(err error, then string) error {
	if errors.Is(err, certs.ErrExists) {
		return fail(bw.WouldOverwrite, "%w", err).do("give another --out, or --force to overwrite it: %s", then)
	}
	return fail(bw.File, "%w", err).do("check the name of --out and who may write in it")
}

// checkHosts refuses what is neither an address nor a host name: ports, URLs.
func checkHosts(hosts []string) error {
	var wrong faults
	for _, h := range hosts {
		if h == "" || net.ParseIP(h) == nil && strings.ContainsAny(h, ":/@ \t") {
			wrong.add(fail(bw.Usage, "--host %q is neither a host name nor an address", h).do("give it without a port, like n1.example.com or 10.0.0.1"))
		}
	}
	return wrong.err()
}
