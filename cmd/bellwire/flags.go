package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagsFromEnv gives each flag that is not on the command line the value of
// its twin in the environment, where there is one: BELLWIRE_MAX_QUEUE for
// --max-queue.
func flagsFromEnv(flags *pflag.FlagSet, lookup func(string) (string, bool)) error {
	var first error
	flags.VisitAll(func(f *pflag.Flag) {
		if first != nil || f.Changed || f.Name == "help" {
			return
		}
		name := envName(f.Name)
		value, ok := lookup(name)
		if !ok {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			first = fail(bwEnvironment, "%s=%q is no value for --%s: %w", name, value, f.Name, rootCause(err))
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

// flagFault says which flag was not understood, and the nearest one there is.
func flagFault(cmd *cobra.Command, err error) error {
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		f := invalid.GetFlag()
		if why, ok := f.Value.(refusedFlag); ok {
			return fail(bwUsage, "mosquitto's %s is not supported: %s", flagNames(f), string(why)).do("leave it away")
		}
		value := strings.ReplaceAll(invalid.GetValue(), wordEnd, " ")
		return fail(bwUsage, "%q is no value for %s: %w", value, flagNames(f), rootCause(err)).
			do("%s: %s", flagNames(f), usageOf(f))
	}
	if missing, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		f := missing.GetFlag()
		return fail(bwUsage, "%s needs a value", flagNames(f)).do("%s: %s", flagNames(f), usageOf(f))
	}
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok {
		return fail(bwUsage, "%w", err).do("see %s --help", cmd.CommandPath())
	}
	name := unknown.GetSpecifiedName()
	if group := unknown.GetSpecifiedShortnames(); group != "" {
		return fail(bwUsage, "unknown flag -%s in -%s", name, group).do("see %s --help", cmd.CommandPath())
	}
	f := fail(bwUsage, "unknown flag --%s", name)
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	if near := nearest(name, names); near != "" {
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
		f := fail(bwUsage, "unknown command %q", cmd.CommandPath()+" "+args[0])
		var names []string
		for _, sub := range cmd.Commands() {
			if !sub.Hidden {
				names = append(names, sub.Name())
				names = append(names, sub.Aliases...)
			}
		}
		if near := nearest(args[0], names); near != "" {
			return f.do("did you mean %s %s?", cmd.CommandPath(), near)
		}
		return f.do("see %s --help", cmd.CommandPath())
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cmd.SetOut(cmd.ErrOrStderr()) // nobody asked for it: no data
		if err := cmd.Help(); err != nil {
			return err
		}
		return exitCode(exitUsage)
	}
}

// noArgs refuses arguments that are no flags, naming the first.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fail(bwUsage, "%s takes no argument, got %q", cmd.CommandPath(), args[0])
}

// nearest returns the name that word was most probably meant to be: the one
// with the fewest edits, at most two and fewer than half of the word. Empty
// if none is that near.
func nearest(word string, names []string) string {
	best, bestDistance := "", 3
	for _, name := range names {
		d := editDistance(word, name)
		if strings.HasPrefix(name, word) && len(word) >= 3 {
			d = 1
		}
		if d < bestDistance && 2*d < max(len(word), 3) {
			best, bestDistance = name, d
		}
	}
	return best
}

// editDistance counts the insertions, deletions, substitutions and swaps of
// neighbours that turn a into b.
func editDistance(a, b string) int {
	row := func() []int { return make([]int, len(b)+1) }
	before, last, this := row(), row(), row()
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		this[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			this[j] = min(last[j]+1, this[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				this[j] = min(this[j], before[j-2]+1)
			}
		}
		before, last, this = last, this, before
	}
	return last[len(b)]
}
