package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/policy"
)

// isXML says whether a file is XML and not JSON.
func isXML(document []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(document), []byte("<")) }

// fromXML makes JSON of a policy in XML, and prints what of it has no effect.
func fromXML(w io.Writer, file string, document []byte) ([]byte, error) {
	made, warnings, err := policy.FromXML(document)
	if refused, ok := errors.AsType[*kind.Refusal](err); ok {
		return nil, faulty(file, refused.Faults)
	}
	if err != nil {
		return nil, fail(bw.OwnPolicy, "%s: %w", file, err)
	}
	return made, tellFaults(w, file, warnings)
}

// faulty is a file of a policy with faults.
func faulty(file string, faults jsontree.Faults) error {
	f := fail(bw.OwnPolicy, "%s has %s", file, plural(len(faults), "fault"))
	var lines []string
	for _, fault := range faults {
		lines = append(lines, file+": "+pointed(fault))
	}
	f.detail = strings.Join(lines, "\n")
	return f
}

func tellFaults(w io.Writer, file string, warnings jsontree.Faults) error {
	for _, f := range warnings {
		if _, err := fmt.Fprintf(w, "warning: %s: %s\n", file, pointed(f)); err != nil {
			return fail(bw.File, "cannot write: %w", err)
		}
	}
	return nil
}

// writeXML prints a policy as XML.
func (c *clientFlags) writeXML(cmd *cobra.Command, kindName string, document []byte) error {
	owner, err := c.self()
	if err != nil {
		return err
	}
	k, err := policyFor(kindName)
	if err != nil {
		return err
	}
	p, err := policy.Parse(document, k, owner)
	if err != nil {
		return fail(bw.OwnPolicy, "the policy is of another version of the program: %w", err)
	}
	text, warnings := p.XML()
	if err := tellFaults(cmd.ErrOrStderr(), "policy", warnings); err != nil {
		return err
	}
	return writeLine(cmd.OutOrStdout(), bytes.TrimSpace(text))
}
