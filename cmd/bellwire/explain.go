package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

func explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain [CODE]",
		Short: "What an error code means and what to do about it",
		Long: `Prints what is known about an error code such as BW-2001, and lists all codes
when none is given.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				for _, e := range codes {
					fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", e.code, e.title)
				}
				return nil
			}
			e, ok := findCode(args[0])
			if !ok {
				return fail(bwNoSuchCode, "there is no code %q", args[0])
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s  %s     (exit code %d)\n  what to do: %s\n\n%s\n", e.code, e.title, e.exit, e.todo, e.more)
			return err
		},
	}
}

// findCode reads "BW-1002", "bw-1002" and "1002".
func findCode(name string) (codeEntry, bool) {
	digits := strings.TrimPrefix(strings.ToUpper(name), "BW-")
	n, err := strconv.Atoi(digits)
	if err != nil {
		return codeEntry{}, false
	}
	for _, e := range codes {
		if e.code == code(n) {
			return e, true
		}
	}
	return codeEntry{}, false
}
