package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/policy"
)

// ownBlocklist is the topic of whom somebody has blocked.
const ownBlocklist = "$me/blocklist"

func blocklistCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "blocklist",
		Short: "Say whom you have blocked, of all kinds",
		Long: `Whoever is on your blocklist sees nothing of you and reaches you with nothing, of all
kinds, whatever your policies say; how they notice is by style: polite (they do not,
which is so if nothing is said), refuse (they are told), ignore (they wait in vain).`,
		Args: noArgs,
	}
	cmd.AddCommand(blocklistGetCommand(), blocklistSetCommand(), blocklistAddCommand(), blocklistRemoveCommand())
	return cmd
}

// clientOnly is a verb that has the flags of a client and none of its own.
func clientOnly(c *clientFlags, cmd *cobra.Command) *cobra.Command {
	flags := cmd.Flags()
	flags.Bool("help", false, "what this verb does")
	flags.SortFlags = false
	c.connectFlags(flags)
	return cmd
}

func blocklistGetCommand() *cobra.Command {
	var c clientFlags
	return clientOnly(&c, &cobra.Command{
		Use:     "get",
		Aliases: []string{"ls"},
		Short:   "Print your blocklist",
		Example: `  bellwire blocklist get -u ana@example.com`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			document, err := c.present(cmd, ownBlocklist, "your blocklist is not told")
			if err != nil {
				return err
			}
			if len(document) == 0 {
				return fail(bw.NotSet, "you have blocked nobody").do("block somebody: bellwire blocklist add ADDRESS")
			}
			return writeLine(cmd.OutOrStdout(), safeJSON(bytes.TrimSpace(document)))
		},
	})
}

func blocklistSetCommand() *cobra.Command {
	var c clientFlags
	return clientOnly(&c, &cobra.Command{
		Use:   "set FILE",
		Short: "Put a blocklist in force; it acts at once",
		Long: `Checks FILE (- for standard input) and puts it in force. A file that is empty removes
the list.`,
		Example: `  bellwire blocklist set blocked.json -u ana@example.com`,
		Args:    exactArgs(1, "a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			owner, err := c.self()
			if err != nil {
				return err
			}
			document, err := readAll(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			if len(bytes.TrimSpace(document)) == 0 {
				document = nil
			} else if err := checkBlocklist(args[0], document, owner); err != nil {
				return err
			}
			return c.send(cmd, &publication{topic: ownBlocklist, payload: document, contentType: "application/evt-policy+json"})
		},
	})
}

func checkBlocklist(file string, document []byte, owner kind.Addr) error {
	_, err := policy.ReadBlocklist(document, owner)
	if err == nil {
		return nil
	}
	refused, ok := errors.AsType[*kind.Refusal](err)
	if !ok {
		return fail(bw.OwnPolicy, "%s: %w", file, err)
	}
	return refusedFile(file, refused)
}

func blocklistAddCommand() *cobra.Command {
	var c clientFlags
	var style string
	cmd := clientOnly(&c, &cobra.Command{
		Use:   "add ADDRESS|DOMAIN…",
		Short: "Block somebody, or all of a domain",
		Example: `  bellwire blocklist add mallory@example.com -u ana@example.com
  bellwire blocklist add spam.example --style refuse -u ana@example.com`,
		Args: someArgs(1, policy.MaxBlocked, "whom: addresses and domains"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.editBlocklist(cmd, args, func(l *blocklistFile, who string) error {
				entry, err := blockedEntry(who)
				if err != nil {
					return err
				}
				if style != "" {
					entry["style"], _ = json.Marshal(style)
				}
				text, err := json.Marshal(entry)
				l.Blocked = append([]json.RawMessage{text}, l.without(who)...)
				return err
			})
		},
	})
	cmd.Flags().StringVar(&style, "style", "", "how they notice: polite, refuse or ignore (default: as the list says, or polite)")
	return cmd
}

func blocklistRemoveCommand() *cobra.Command {
	var c clientFlags
	return clientOnly(&c, &cobra.Command{
		Use:     "rm ADDRESS|DOMAIN…",
		Short:   "Take somebody off your blocklist",
		Example: `  bellwire blocklist rm mallory@example.com -u ana@example.com`,
		Args:    someArgs(1, policy.MaxBlocked, "whom: addresses and domains"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.editBlocklist(cmd, args, func(l *blocklistFile, who string) error {
				left := l.without(who)
				if len(left) == len(l.Blocked) {
					return fail(bw.NotSet, "%s is not on your blocklist by that name", who).do("look at what is: bellwire blocklist get")
				}
				l.Blocked = left
				return nil
			})
		},
	})
}

// A blocklistFile is a blocklist as it is edited: its entries stay as they were written.
type blocklistFile struct {
	V       int               `json:"v"`
	Entity  string            `json:"entity,omitempty"`
	Style   string            `json:"style,omitempty"`
	Blocked []json.RawMessage `json:"blocked"`
}

// without returns the entries but those that are about who and nobody else.
func (l *blocklistFile) without(who string) []json.RawMessage {
	return slices.DeleteFunc(slices.Clone(l.Blocked), func(text json.RawMessage) bool {
		var entry struct {
			One  string
			Many *struct {
				Domain string
				Except []json.RawMessage
			}
		}
		if json.Unmarshal(text, &entry) != nil {
			return false
		}
		if entry.Many != nil {
			return len(entry.Many.Except) == 0 && strings.EqualFold(entry.Many.Domain, who)
		}
		_, is, err := kind.ParseURI(entry.One)
		wanted, bad := kind.ParseAddr(who)
		return err == nil && bad == nil && is == wanted
	})
}

// blockedEntry is an entry about an address, or a domain.
func blockedEntry(who string) (map[string]json.RawMessage, error) {
	if strings.Contains(who, "@") {
		a, err := kind.ParseAddr(who)
		if err != nil {
			return nil, usage("%q: %w", who, err)
		}
		uri, err := json.Marshal(a.URI("pres"))
		return map[string]json.RawMessage{"one": uri}, err
	}
	domain, err := acl.ParseDomain(who)
	if err != nil {
		return nil, usage("%q is neither an address nor a domain: %w", who, err)
	}
	many, err := json.Marshal(map[string]string{"domain": domain})
	return map[string]json.RawMessage{"many": many}, err
}

// editBlocklist changes the blocklist that is in force, if it is still that one when the
// change arrives.
func (c *clientFlags) editBlocklist(cmd *cobra.Command, whom []string, edit func(l *blocklistFile, who string) error) error {
	owner, err := c.self()
	if err != nil {
		return err
	}
	document, err := c.present(cmd, ownBlocklist, "your blocklist is not told")
	if err != nil {
		return err
	}
	tag := policy.Tag(nil)
	l := blocklistFile{V: 1}
	if len(document) > 0 {
		tag = policy.Tag(document)
		if err := json.Unmarshal(document, &l); err != nil {
			return fail(bw.OwnPolicy, "your blocklist: %w", err)
		}
	}
	for _, who := range whom {
		if err := edit(&l, who); err != nil {
			return err
		}
	}
	edited, err := json.Marshal(l)
	if err != nil {
		return fail(bw.OwnPolicy, "your blocklist: %w", err)
	}
	if err := checkBlocklist("your blocklist", edited, owner); err != nil {
		return err
	}
	return c.send(cmd, &publication{topic: ownBlocklist, payload: edited, contentType: "application/evt-policy+json", user: map[string]string{"evt-etag": tag}})
}
