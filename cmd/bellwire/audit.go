package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
)

// audits is a server's audit as HTTP writes and reads it.
type audits struct{ s *server }

var _ api.Audits = audits{}

// Write implements api.Audits. While not all nodes know the audit nothing is written: who
// may look then is an operator, or is so by roles that not all nodes know either.
func (a audits) Write(ctx context.Context, l api.Look) error {
	b := a.s.broker
	if b.Level() < broker.LevelPolicies {
		return nil
	}
	about := l.About
	if about == "anonymous" {
		about = ""
	} else if about != "" && !strings.HasPrefix(about, "*@") {
		in, _ := b.Settings()
		address, err := acl.ParseAddress(about, in.Domain)
		if err != nil {
			return nil // nobody is called that, so nothing was told of them
		}
		about = address
	}
	if about == l.By {
		return nil
	}
	door := "http"
	switch {
	case l.By == "local":
		door = "local"
	case l.Door != "":
		door = l.Door
	}
	e := broker.AuditEntry{By: l.By, Door: door, What: l.What, About: about, Result: l.Result}
	if in, ok := b.Policy().(*authorizer); ok {
		_, domain, _ := strings.Cut(about, "@")
		e.Hidden = in.policy.Unshown(l.By, domain)
	}
	return b.Audit(ctx, e)
}

// auditPage is how many entries one answer has.
const auditPage = 100

// Read implements api.Audits.
func (a audits) Read(_ context.Context, q api.AuditQuery) (api.AuditPage, error) {
	page := api.AuditPage{Entries: []any{}}
	if q.About != "" {
		in, _ := a.s.broker.Settings()
		address, err := acl.ParseAddress(q.About, in.Domain)
		if err != nil {
			return page, fmt.Errorf("%w: about: %w", api.ErrBadQuestion, err)
		}
		q.About = address
	}
	entries, more, lost := a.s.broker.Audited(broker.AuditQuery{Domain: q.Domain, About: q.About, Before: q.Before, Most: auditPage})
	for _, e := range entries {
		page.Entries = append(page.Entries, e)
	}
	page.Before, page.Lost = more, lost
	return page, nil
}

// auditCommand is `bellwire audit`.
func auditCommand() *cobra.Command {
	var server httpFlags
	var domain, about, output string
	var before uint64
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Who has looked at what, and changed what",
		Long: `Lists what administrators have looked at and changed, the newest first: who, when,
what, about whom, by which door and with what result. Without flags, operators are
told of what is about no domain, and anybody else of what concerns them, but for
what the operator's policy exempts. --domain is for operators and the domain's
administrators.`,
		Example: `  bellwire audit -u ana@example.com                # what concerns ana
  bellwire audit --domain example.com              # for operators and the domain's administrators`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := server.clientFor(output)
			if err != nil {
				return err
			}
			q := url.Values{}
			for name, value := range map[string]string{"domain": domain, "about": about} {
				if value != "" {
					q.Set(name, value)
				}
			}
			if before > 0 {
				q.Set("before", strconv.FormatUint(before, 10))
			}
			var page struct {
				Entries []struct {
					Number                        uint64
					At                            time.Time
					By, Door, What, About, Result string
					Hidden                        bool
				}
				Before, Lost uint64
			}
			var raw json.RawMessage
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/audit?"+q.Encode(), nil, &raw); err != nil {
				return err
			}
			if output == "json" {
				return writeLine(cmd.OutOrStdout(), safeJSON(bytes.TrimSpace(raw)))
			}
			if err := json.Unmarshal(raw, &page); err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, e := range page.Entries {
				result := safe(e.Result)
				if e.Hidden {
					result += ", not shown to whom it is about"
				}
				fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Number, e.At.Format(time.RFC3339), safe(e.By), e.Door, safe(e.What), safe(e.About), result)
			}
			if err := w.Flush(); err != nil {
				return err
			}
			if page.Before > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "there are older ones: --before %d\n", page.Before)
			}
			if page.Lost > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "%d older ones are not kept any more\n", page.Lost)
			}
			return nil
		},
	}
	server.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&domain, "domain", "", "what is about this `domain`")
	flags.StringVar(&about, "about", "", "only what concerns this `address`, as it is shown to it")
	flags.Uint64Var(&before, "before", 0, "only what is older than the entry of that `number`")
	addOutput(cmd, &output)
	return cmd
}
