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
		Long: `Prints the version, the commit that it was built from, with + if there were
changes beside, and the Go that built it. What was built without version control
says so: go run does, and builds with -buildvcs=false.`,
		Example: `  bellwire version
  bellwire version -o json`,
		Args: noArgs,
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

// revision is the commit that this binary was built from.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return noRevision
	}
	return revisionOf(info)
}

// noRevision is said of a binary that does not know its commit: go run and
// -buildvcs=false leave it out, and so does a build outside of a git checkout, or in
// one of several that share a repository (git worktree).
const noRevision = "built without version control"

// revisionOf returns the commit of a build, shortened; "+" marks a tree with changes
// that were not committed. A build of the module by its version (go install …@v0.1.0)
// has that instead.
func revisionOf(info *debug.BuildInfo) string {
	of := map[string]string{}
	for _, s := range info.Settings {
		of[s.Key] = s.Value
	}
	rev := of["vcs.revision"]
	switch {
	case rev == "" && info.Main.Version != "" && info.Main.Version != "(devel)":
		return info.Main.Version
	case rev == "":
		return noRevision
	case of["vcs.modified"] == "true":
		return rev[:min(12, len(rev))] + "+"
	}
	return rev[:min(12, len(rev))]
}
