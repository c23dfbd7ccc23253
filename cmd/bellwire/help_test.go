package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Every verb says what it does, what each flag is for, and shows how it is called; what it
// shows is understood.
func TestHelp(t *testing.T) {
	root := rootCommand()
	var each func(cmd *cobra.Command)
	each = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			each(sub)
		}
		if cmd.HasSubCommands() || cmd.Hidden {
			return
		}
		name := cmd.CommandPath()
		if cmd.Short == "" || !strings.Contains(cmd.Example+" ", name+" ") {
			t.Errorf("%s: short text %q, example %q", name, cmd.Short, cmd.Example)
		}
		for _, line := range strings.Split(cmd.Long, "\n") {
			if n := len([]rune(line)); n > 90 || strings.TrimRight(line, " ") != line {
				t.Errorf("%s: a line of %d characters, or one that ends with blanks: %q", name, n, line)
			}
		}
		flags := cmd.Flags()
		flags.AddFlagSet(cmd.InheritedFlags())
		for _, usage := range strings.Split(flags.FlagUsages(), "\n") {
			if strings.TrimSpace(regexp.MustCompile(`^ *(-\w, )?--[\w-]+( \S+)?`).ReplaceAllString(usage, "")) == "" && usage != "" {
				t.Errorf("%s: a flag without a word: %q", name, usage)
			}
		}
		for _, line := range strings.Split(cmd.Example, "\n") {
			_, command, _ := strings.Cut(line, "bellwire ")
			if err := understood(shellWords(command)); err != nil {
				t.Errorf("%s: %q: %v", name, line, err)
			}
		}
	}
	each(root)
}

// shellWords splits a line as a shell does, as far as examples need it: quotes, and an end
// at a comment, a pipe, a redirection or another command.
func shellWords(line string) (words []string) {
	for _, m := range regexp.MustCompile(`'([^']*)'|"([^"]*)"|([^\s'"]+)`).FindAllStringSubmatch(line, -1) {
		switch word := m[1] + m[2] + m[3]; {
		case m[3] != "" && strings.ContainsAny(word[:1], "#|>&;<"):
			return words
		default:
			words = append(words, word)
		}
	}
	return words
}
