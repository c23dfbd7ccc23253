package main

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bellwire/bellwire/profiles/policy"
	"github.com/bellwire/bellwire/yamltree"
)

// A unit is what a number in a file counts. Where there is more than one way to
// count, the number is written with its unit: nobody has to remember whether 64
// are bytes, and nobody has to guess.
type unit uint8

const (
	inCount    unit = iota // things: 100
	inBytes                // 512B, 64KiB, 1MiB, 2GiB
	inTime                 // nanoseconds, written 250ms, 30s, 5m, 1h30m, 90d
	inSeconds              // the same, whole seconds only
	inHandling             // polite-block, confirm
)

// parse reads a value of the unit. A Problem without advice is one that the
// bounds of the value are advice for. What is too large for an int64 is returned
// as the largest, for no bound lies beyond.
func (u unit) parse(text string) (int64, *yamltree.Problem) {
	switch u {
	case inHandling:
		h, ok := policy.HandlingOf(text)
		if !ok || h != policy.PoliteBlock && h != policy.Confirm {
			return 0, yamltree.Problemf("%q is not possible", cut(text)).Hint("write %v or %v", policy.PoliteBlock, policy.Confirm)
		}
		return int64(h), nil
	case inBytes:
		return parseSize(text)
	case inTime, inSeconds:
		n, p := parseSpan(text)
		if p == nil && u == inSeconds && n%second != 0 {
			p = yamltree.Problemf("%s is no whole number of seconds", cut(text)).Hint("clients are told it in seconds")
		}
		return n, p
	}
	number, rest := splitUnit(text)
	n, ok := parseNumber(strings.ReplaceAll(number, "_", ""))
	if !ok || rest != "" {
		return 0, yamltree.Problemf("%q is no whole number", cut(text))
	}
	return n, nil
}

func (u unit) format(n int64) string {
	switch u {
	case inHandling:
		return policy.Handling(n).String()
	case inBytes:
		return formatSize(n)
	case inTime, inSeconds:
		return formatSpan(n)
	}
	return strconv.FormatInt(n, 10)
}

// sizes are the units of size, largest first.
var sizes = []struct {
	name string
	size int64
	like []string // what people write for it, in lower case
}{
	{"GiB", 1 << 30, []string{"gib", "gb", "gi", "g"}},
	{"MiB", 1 << 20, []string{"mib", "mb", "mi", "m"}},
	{"KiB", 1 << 10, []string{"kib", "kb", "ki", "k"}},
	{"B", 1, []string{"b", "byte", "bytes", "octets"}},
}

func parseSize(text string) (int64, *yamltree.Problem) {
	number, unit := splitUnit(text)
	n, ok := parseNumber(number)
	if !ok {
		return 0, yamltree.Problemf("%q is no size", cut(text)).Hint("write a whole number and its unit: B, KiB, MiB or GiB")
	}
	if unit == "" {
		return 0, yamltree.Problemf("%s has no unit", cut(text)).Hint("write %s, or another unit: B, KiB, MiB, GiB", formatSize(n))
	}
	for _, s := range sizes {
		if unit == s.name {
			return times(n, s.size), nil
		}
		if slices.Contains(s.like, strings.ToLower(unit)) {
			return 0, yamltree.Problemf("%s: %q is no unit", cut(text), unit).Hint("write %s%s", cut(number), s.name)
		}
	}
	return 0, yamltree.Problemf("%s: %q is no unit", cut(text), cut(unit)).Hint("units of size are B, KiB, MiB and GiB")
}

// formatSize writes n with the largest unit that needs no fraction.
func formatSize(n int64) string {
	for _, s := range sizes {
		if n%s.size == 0 && n != 0 {
			return strconv.FormatInt(n/s.size, 10) + s.name
		}
	}
	return "0B"
}

const (
	second = int64(time.Second)
	day    = 24 * int64(time.Hour)
)

func parseSpan(text string) (int64, *yamltree.Problem) {
	number, unit := splitUnit(text)
	n, ok := parseNumber(number)
	switch {
	case ok && unit == "":
		return 0, yamltree.Problemf("%s has no unit", cut(text)).Hint("write %ds, or another unit: ms, s, m, h, d", n)
	case ok && unit == "d":
		return times(n, day), nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, yamltree.Problemf("%q is no length of time", cut(text)).Hint("write a number and its unit, like 30s (or ms, m, h, d)")
	}
	return int64(d), nil
}

// formatSpan writes a length of time as people do: 90d, 1h30m.
func formatSpan(n int64) string {
	if n != 0 && n%day == 0 {
		return strconv.FormatInt(n/day, 10) + "d"
	}
	s := time.Duration(n).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// splitUnit splits text where the number at its front ends.
func splitUnit(text string) (number, unit string) {
	rest := strings.TrimLeft(text, "+-0123456789_.")
	return text[:len(text)-len(rest)], strings.TrimSpace(rest)
}

// parseNumber reads a whole number, the nearest that there is for one of too
// many digits.
func parseNumber(digits string) (n int64, ok bool) {
	n, err := strconv.ParseInt(digits, 10, 64)
	return n, err == nil || errors.Is(err, strconv.ErrRange)
}

// times returns n times by, or what is nearest to it. by is positive.
func times(n, by int64) int64 {
	switch {
	case n > math.MaxInt64/by:
		return math.MaxInt64
	case n < math.MinInt64/by:
		return math.MinInt64
	}
	return n * by
}

// cut returns s short enough for a message.
func cut(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}
