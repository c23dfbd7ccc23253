package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/internal/nearest"
)

// flagsFromEnv gives each flag that is not on the command line the value of
// its twin in the environment, where there is one: BELLWIRE_MAX_QUEUE for
// --max-queue. Where the server is comes whole from the one or the other: a
// --url on the command line is not mixed with a BELLWIRE_PORT, nor the reverse.
func flagsFromEnv(flags *pflag.FlagSet, lookup func(string) (string, bool)) error {
	var first error
	url := flags.Changed("url")
	place := flags.Changed("host") || flags.Changed("port") || flags.Changed("unix")
	flags.VisitAll(func(f *pflag.Flag) {
		if first != nil || f.Changed || f.Name == "help" {
			return
		}
		switch f.Name {
		case "host", "port", "unix":
			if url {
				return
			}
		case "url":
			if place {
				return
			}
		}
		name := envName(f.Name)
		value, ok := lookup(name)
		if !ok {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			first = fail(bw.Environment, "%s=%q is no value for --%s: %w", name, value, f.Name, rootCause(err))
		}
	})
	return first
}

func envName(flag string) string {
	return "BELLWIRE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// rootCause returns the innermost error: pflag wraps what a value's Set says
// into a sentence that repeats the flag.
func rootCause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// notBoth says so if two flags that exclude each other are set.
func notBoth(cmd *cobra.Command, one, other string) error {
	for _, name := range []string{one, other} {
		if is, err := cmd.Flags().GetBool(name); err != nil || !is {
			return err
		}
	}
	return fail(bw.Usage, "--%s and --%s do not go together", one, other).do("leave one of them out; %s --help says what each does", cmd.CommandPath())
}

// flagFault says which flag was not understood, and the nearest one there is.
func flagFault(cmd *cobra.Command, err error) error {
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		f := invalid.GetFlag()
		if why, ok := f.Value.(refusedFlag); ok {
			return fail(bw.Usage, "mosquitto's %s is not supported: %s", flagNames(f), string(why)).do("leave it away")
		}
		value := strings.ReplaceAll(invalid.GetValue(), wordEnd, " ")
		return fail(bw.Usage, "%q is no value for %s: %w", value, flagNames(f), rootCause(err)).
			do("%s: %s", flagNames(f), usageOf(f))
	}
	if missing, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		f := missing.GetFlag()
		return fail(bw.Usage, "%s needs a value", flagNames(f)).do("%s: %s", flagNames(f), usageOf(f))
	}
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok {
		return fail(bw.Usage, "%w", err).do("see %s --help", cmd.CommandPath())
	}
	name := unknown.GetSpecifiedName()
	if verbs := verbsOf(cmd); len(verbs) > 0 { // its verb is unknown, or missing: then the flag is none of its own
		if verb := cmd.Flags().Arg(0); verb != "" {
			return unknownVerb(cmd, verb)
		}
		return fail(bw.Usage, "%s takes a verb before its flags: %s", cmd.CommandPath(), strings.Join(verbs, ", ")).
			do("see %s --help", cmd.CommandPath())
	}
	if group := unknown.GetSpecifiedShortnames(); group != "" {
		return fail(bw.Usage, "unknown flag -%s in -%s", name, group).do("see %s --help", cmd.CommandPath())
	}
	f := fail(bw.Usage, "unknown flag --%s", name)
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	if near := nearest.Name(name, names); near != "" {
		return f.do("did you mean --%s?", near)
	}
	return f.do("see %s --help", cmd.CommandPath())
}

// flagNames returns "-p, --port" or "--port".
func flagNames(f *pflag.Flag) string {
	if f.Shorthand != "" {
		return fmt.Sprintf("-%s, --%s", f.Shorthand, f.Name)
	}
	return "--" + f.Name
}

// usageOf returns what a flag is for, without the marks that name its value.
func usageOf(f *pflag.Flag) string {
	_, text := pflag.UnquoteUsage(f)
	return text
}

// prepareGroups gives every command that is only a group of verbs something to
// say: an unknown verb gets the nearest one, no verb gets the list.
func prepareGroups(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		prepareGroups(sub)
	}
	if !cmd.HasSubCommands() || cmd.Runnable() {
		return
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return unknownVerb(cmd, args[0])
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cmd.SetOut(cmd.ErrOrStderr()) // nobody asked for it: no data
		if err := cmd.Help(); err != nil {
			return err
		}
		return exitCode(exitUsage)
	}
}

// unknownVerb says which verb of a group may have been meant: one that is spelt much
// alike, or, anywhere below, one that others call so (SuggestFor).
func unknownVerb(cmd *cobra.Command, verb string) error {
	f := fail(bw.Usage, "unknown command %q", cmd.CommandPath()+" "+verb)
	names := verbsOf(cmd)
	for _, sub := range cmd.Commands() {
		if !sub.Hidden {
			names = append(names, sub.Aliases...)
		}
	}
	if near := nearest.Name(verb, names); near != "" {
		return f.do("did you mean %s %s?", cmd.CommandPath(), near)
	}
	if other := calledSo(cmd, verb); other != nil {
		return f.do("did you mean %s?", other.CommandPath())
	}
	for _, top := range cmd.Root().Commands() { // clients kick, of other brokers
		if top.Name() == verb && !top.Hidden {
			return f.do("did you mean %s?", top.CommandPath())
		}
	}
	if cmd.HasParent() {
		return f.do("its verbs are %s: see %s --help", strings.Join(verbsOf(cmd), ", "), cmd.CommandPath())
	}
	return f.do("see %s --help", cmd.CommandPath())
}

// calledSo returns the verb below a group that a word is suggested to mean; nil for none.
func calledSo(cmd *cobra.Command, word string) *cobra.Command {
	for _, sub := range cmd.Commands() {
		if slices.Contains(sub.SuggestFor, word) {
			return sub
		}
		if found := calledSo(sub, word); found != nil {
			return found
		}
	}
	return nil
}

// verbsOf returns the names of the verbs of a group, none for a command that is no
// group.
func verbsOf(cmd *cobra.Command) (names []string) {
	for _, sub := range cmd.Commands() {
		if !sub.Hidden {
			names = append(names, sub.Name())
		}
	}
	return names
}

// noArgs refuses arguments that are no flags, naming the first.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fail(bw.Usage, "%s takes no argument, got %q", cmd.CommandPath(), args[0])
}
