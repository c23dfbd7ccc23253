package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/bw"
)

// version is what this tree will be released as.
const version = "0.1.0"

func versionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Which bellwire this is",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := struct {
				Version  string `json:"version"`
				Revision string `json:"revision"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{version, revision(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			switch output {
			case "json":
				return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
			case "":
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "bellwire %s (%s, %s, %s)\n", v.Version, v.Revision, v.Go, v.Platform)
				return err
			}
			return fail(bw.Usage, "--output %q is not known here", output).do("use -o json, or none")
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, or a line for people when empty")
	return cmd
}

// revision is the commit the binary was built from, shortened; "+" marks a
// tree with changes that were not committed.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	rev, changed := "unknown", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			rev = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				changed = "+"
			}
		}
	}
	return rev + changed
}
