// Command bellwire is the broker, its clients and its tools in one binary.
//
// A verb is a file: it reads its flags, calls a package and returns an error.
// Only main ends the process, and it does so with the exit code that the error
// carries (see fault). Standard output carries data, standard error everything
// else. wire.go is the one file where the broker's rooms meet.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, release := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends ctx; after that signals have their usual effect
	// again, so that a second one ends a verb that does not come to an end.
	context.AfterFunc(ctx, release)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run carries out one command line and returns the exit code. It is main for
// tests that want no process of their own.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(mosquittoArgs(root, args))
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitInterrupted // who interrupts knows why: no message
	}
	return report(stderr, err)
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "bellwire",
		Short: "Event notification that knows who may listen, and when",
		Long: `Event notification that knows who may listen, and when.

Every flag has a twin in the environment: BELLWIRE_PORT for --port, BELLWIRE_PW
for --pw, which keeps a password out of the list of processes.

bellwire completion bash (zsh, fish, powershell) prints what has a shell complete
verbs and flags: source <(bellwire completion bash)`,
		SilenceErrors: true, // report prints them
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return flagsFromEnv(cmd.Flags(), os.LookupEnv)
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetHelpCommand(&cobra.Command{Hidden: true, Use: "no-help"})
	root.PersistentFlags().Bool("help", false, "what this verb does") // no -h: pub and sub need it for the host
	root.SetFlagErrorFunc(flagFault)
	root.AddCommand(
		aclCommand(),
		adminCommand(),
		agentCommand(),
		auditCommand(),
		benchCommand(),
		backupCommand(),
		banCommand(),
		bridgeCommand(),
		restoreCommand(),
		certCommand(),
		clientsCommand(),
		clusterCommand(),
		delayedCommand(),
		nodeCommand(),
		pubCommand(),
		subCommand(),
		devCommand(),
		explainCommand(),
		imCommand(),
		kickCommand(),
		locationCommand(),
		policyCommand(),
		blocklistCommand(),
		presenceCommand(),
		serveCommand(),
		userCommand(),
		tokenCommand(),
		versionCommand(),
		watchersCommand(),
	)
	prepareGroups(root)
	return root
}
