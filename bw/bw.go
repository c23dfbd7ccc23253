// Package bw is the registry of error codes: BW-NNNN names a kind of error for
// ever, in messages, in Reason Strings of MQTT, in logs and over HTTP, and
// `bellwire explain BW-NNNN` says what it means and what to do.
//
// A code's first digit says what it is about: 1 connection, 2 configuration and
// usage, 3 protocol, 4 identity and access, 5 storage, 6 profile documents,
// 7 cluster, 8 limits, 9 a fault of ours.
package bw

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Code is a kind of error.
type Code int

const (
	Unreachable     Code = 1002
	Busy            Code = 1003
	Lost            Code = 1004
	TimedOut        Code = 1005
	NoAnswer        Code = 1006
	TLS             Code = 1007
	TakenOver       Code = 1008
	Usage           Code = 2001
	Environment     Code = 2002
	NoSuchCode      Code = 2003
	File            Code = 2004
	LimitsFile      Code = 2010
	PolicyFile      Code = 2011
	OpenListener    Code = 2012
	AddressInUse    Code = 2013
	ConfigFile      Code = 2014
	WouldOverwrite  Code = 2015
	NotConfirmed    Code = 2016
	PolicyMoved     Code = 2017
	PolicyTests     Code = 2018
	NoSuchPolicy    Code = 2019
	TLSFiles        Code = 2020
	OldProtocol     Code = 3001
	Refused         Code = 3002
	SomeRefused     Code = 3003
	Denied          Code = 4001
	BadCredentials  Code = 4002
	ByOwner         Code = 4003
	NoSuchClient    Code = 4004
	ByPolicy        Code = 4031
	NotExplained    Code = 4032
	DataInUse       Code = 5001
	DataOther       Code = 5002
	DataNewer       Code = 5003
	DataDamaged     Code = 5004
	DiskFull        Code = 5005
	BackupDamaged   Code = 5006
	OwnPolicy       Code = 6001
	NotSet          Code = 6002
	NoSuchKind      Code = 6003
	BadPayload      Code = 6004
	NoQuorum        Code = 7001
	ClusterTLS      Code = 7002
	NoSuchNode      Code = 7003
	WouldLoseQuorum Code = 7004
	ClusterRefuses  Code = 7005
	ClusterSlow     Code = 7006
	Diverged        Code = 7007
	NodeTooOld      Code = 7008
	NodeRemoved     Code = 7009
	NodeContested   Code = 7010
	Limit           Code = 8001
	Unclassified    Code = 9001
)

// String returns "BW-4001".
func (c Code) String() string { return fmt.Sprintf("BW-%04d", int(c)) }

// Entry returns what the registry knows of c, which must be one of the
// constants: a code without an entry could not be printed usefully, and a test
// makes sure that there is none.
func (c Code) Entry() Entry {
	if e, ok := find(c); ok {
		return e
	}
	panic(fmt.Sprintf("bw: code %d is not in the registry", int(c)))
}

// An Entry is what the registry knows of a code.
type Entry struct {
	Code  Code
	Title string // what happened, in one line
	Todo  string // what to do, in one line: printed with the error
	More  string // the page of `bellwire explain`
}

// Entries returns the registry, in the order of the codes.
func Entries() []Entry { return slices.Clone(registry) }

// Find returns the entry that "BW-1002", "bw-1002" or "1002" names.
func Find(name string) (Entry, bool) {
	n, err := strconv.Atoi(strings.TrimPrefix(strings.ToUpper(name), "BW-"))
	if err != nil {
		return Entry{}, false
	}
	return find(Code(n))
}

func find(c Code) (Entry, bool) {
	i, ok := slices.BinarySearchFunc(registry, c, func(e Entry, c Code) int { return int(e.Code - c) })
	if !ok {
		return Entry{}, false
	}
	return registry[i], true
}
