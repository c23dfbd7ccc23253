package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/yamltree"
)

// What the process returns. Scripts rely on them.
const (
	exitFailed      = 1
	exitUsage       = 2 // a bad flag, a bad configuration file
	exitNotFound    = 3
	exitDenied      = 4 // by authentication or by the policy
	exitUnreachable = 5 // or no leader
	exitTimeout     = 6 // the answer or event waited for did not come
	exitConflict    = 7 // it would conflict with what is there, or a condition does not hold
	exitPartial     = 8 // some items failed, told on standard error
	exitTestFailed  = 9
	exitInterrupted = 130
)

// exitOf returns what the process returns for a kind of error.
func exitOf(c bw.Code) int {
	switch c {
	case bw.Unreachable, bw.Busy, bw.Lost, bw.NoAnswer, bw.TLS, bw.NoQuorum:
		return exitUnreachable
	case bw.TimedOut, bw.ClusterSlow:
		return exitTimeout
	case bw.Usage, bw.Environment, bw.LimitsFile, bw.PolicyFile, bw.OpenListener, bw.ConfigFile, bw.OldProtocol, bw.OwnPolicy, bw.ClusterTLS:
		return exitUsage
	case bw.NoSuchCode, bw.NotSet, bw.NoSuchNode, bw.NotExplained, bw.NoSuchPolicy, bw.NoSuchClient:
		return exitNotFound
	case bw.WouldOverwrite, bw.WouldLoseQuorum, bw.ClusterRefuses, bw.NodeRemoved, bw.NodeContested, bw.NotConfirmed, bw.PolicyMoved:
		return exitConflict
	case bw.PolicyTests:
		return exitTestFailed
	case bw.SomeRefused:
		return exitPartial
	case bw.Denied, bw.BadCredentials, bw.ByOwner, bw.ByPolicy:
		return exitDenied
	}
	return exitFailed
}

// A fault is an error as its reader meets it: what happened and why, what to
// do about it, and a code that `bellwire explain` knows more about. The code
// decides the exit code.
type fault struct {
	code bw.Code
	what string // what happened and why; no final stop
	todo string // what to do; empty: what the registry says
	err  error  // wrapped, may be nil; what says it already

	// detail is printed above, whole lines: the places in a file.
	detail string
}

// fail returns a fault with code. The format may hold %w once.
func fail(c bw.Code, format string, args ...any) *fault {
	err := fmt.Errorf(format, args...)
	return &fault{code: c, what: err.Error(), err: errors.Unwrap(err)}
}

// do replaces the registry's advice by one that knows the case at hand.
func (f *fault) do(format string, args ...any) *fault {
	f.todo = fmt.Sprintf(format, args...)
	return f
}

func (f *fault) Error() string { return f.what }
func (f *fault) Unwrap() error { return f.err }

// fileFault makes one fault of everything that is wrong with the file name: a
// *yamltree.FileError, or that it could not be read.
func fileFault(c bw.Code, name string, err error) *fault {
	bad, ok := errors.AsType[*yamltree.FileError](err)
	if !ok {
		return fail(c, "cannot read %s: %w", name, rootCause(err)).do("check the name of the file and who may read it")
	}
	f := fail(c, "%s has a fault", name)
	if n := len(bad.Faults) + bad.More; n > 1 {
		f = fail(c, "%s has %d faults", name, n)
	}
	f.detail, f.err = bad.Report(), err
	return f
}

// faults are several that were found before anything was begun. All are
// printed; the exit code is that of the first.
type faults []error

func (fs faults) Error() string   { return errors.Join(fs...).Error() }
func (fs faults) Unwrap() []error { return fs }

// add appends err, if there is one.
func (fs *faults) add(err error) {
	if err != nil {
		*fs = append(*fs, err)
	}
}

// err returns nil if nothing was added.
func (fs faults) err() error {
	if len(fs) == 0 {
		return nil
	}
	return fs
}

// exitCode is the error of a verb that has already said what there is to say,
// such as a table with failed tests in it: nothing more is printed.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// report prints err, if there is one, in the shape all errors have, and
// returns the exit code.
//
//	bellwire: what happened: why
//	  what to do     BW-NNNN
//
// above which may stand where in a file it is.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	if quiet, ok := errors.AsType[exitCode](err); ok {
		return int(quiet)
	}
	if all, ok := errors.AsType[faults](err); ok {
		exit := report(stderr, all[0])
		for _, err := range all[1:] {
			if f, ok := errors.AsType[*fault](err); ok && f.detail != "" {
				fmt.Fprintln(stderr)
			}
			report(stderr, err)
		}
		return exit
	}
	f, ok := errors.AsType[*fault](err)
	if !ok {
		f = fail(bw.Unclassified, "%w", err)
	}
	todo := f.todo
	if todo == "" {
		todo = f.code.Entry().Todo
	}
	if f.detail != "" {
		fmt.Fprintln(stderr, safeLines(f.detail))
	}
	fmt.Fprintf(stderr, "bellwire: %s\n  %s     %s\n", safeLines(f.what), safeLines(todo), f.code)
	return exitOf(f.code)
}
