package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/bw"
)

func explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain [CODE]",
		Short: "What an error code means and what to do about it",
		Long: `Prints what is known about an error code such as BW-2001, and lists all codes
when none is given.`,
		Example: `  bellwire explain BW-1002
  bellwire explain                                 # all there are`,
		Args: someArgs(0, 1, "one code at most"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				for _, e := range bw.Entries() {
					fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", e.Code, e.Title)
				}
				return nil
			}
			e, ok := bw.Find(args[0])
			if !ok {
				return fail(bw.NoSuchCode, "there is no code %q", args[0])
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s  %s     (exit code %d)\n  what to do: %s\n\n%s\n", e.Code, e.Title, exitOf(e.Code), e.Todo, e.More)
			return err
		},
	}
}
