package blackbox

import (
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write docs/requirements.md anew")

// A requirement is a row that is to be shown: by tests whose names begin with
// it (TestS10..., TestR2_3_1..., TestADM1...), or whose comments end with
// "Also R2.3.3, S62."; or not yet.
type requirement struct {
	row    string
	says   string
	notYet string // why no test shows it
}

var requirements = []requirement{
	{row: "S4", says: "One address, many devices, composed state; a device that dies is out of it within its keep-alive bound."},
	{row: "S6", says: "Entities other than human users are presentities."},
	{row: "S7", says: "Kinds of a third party, in Go, served like those that come with the program."},
	{row: "S10", says: "Whoever sets rules can see beforehand what they will show, to whom, when."},
	{row: "S11", says: "Where wishes of watchers and owners conflict, a setting with a stated winner decides."},
	{row: "S13", says: "A subscription is granted as anonymously as it was asked for, or refused, and leaves no trace."},
	{row: "S14", says: "An owner says whom they accept without a name; that somebody watches they know always."},
	{row: "S15", says: "Who watches under a pseudonym has another one towards each whom they watch."},
	{row: "S16", says: "A pseudonym can receive and send for a while."},
	{row: "S18", says: "Who is no party learns nothing of the subscriptions of others."},
	{row: "S19", says: "An owner knows how many watch, also where they do not know who."},
	{row: "S20", says: "How somebody is refused is the owner’s choice: told, politely, or by no answer."},
	{row: "S21", says: "An administrator cancels and creates subscriptions of their domain."},
	{row: "S22", says: "My boss can subscribe to me between eight and five only."},
	{row: "S23", says: "A subscription has an end, and is refreshed."},
	{row: "S24", says: "An owner accepts a subscription without telling."},
	{row: "S25", says: "Nobody can tell from what they are not sent that they were denied."},
	{row: "S27", says: "Instant messages are delivered in order, once, through the death of the node."},
	{row: "S28", says: "No IP address is told, of whoever it is."},
	{row: "S29", says: "Location is shared with consent, and as exactly as that says."},
	{row: "S30", says: "Presence of persons and their physical presence: kinds of one facility."},
	{row: "S33", says: "An owner learns of a watcher the name, and since when, and nothing else."},
	{row: "S34", says: "What an owner learns of a watcher beyond the name is the watcher’s to say."},
	{row: "S35", says: "Different people are told different things, and cannot tell."},
	{row: "S36", says: "Several presences behind one address."},
	{row: "S37", says: "Which of them one is shown nobody can tell."},
	{row: "S38", says: "What somebody says is their presence: the broker vouches for who said it, not that it is true."},
	{row: "S39", says: "An attribute has different values for different people."},
	{row: "S40", says: "Who wishes to tell an IP address can; the broker adds none."},
	{row: "S41", says: "A process publishes for somebody, as a delegate, what it was given to publish."},
	{row: "S43", says: "An address is neither an account nor a device."},
	{row: "S44", says: "That somebody has several addresses nobody learns who may not."},
	{row: "S45", says: "An address has one spelling."},
	{row: "S46", says: "How many mailboxes somebody has, who writes to them does not learn."},
	{row: "S47", says: "Two presentities behind one address."},
	{row: "S49", says: "An inbox: others send, its owner and delegates read."},
	{row: "S50", says: "One client is watcher, presentity, sender and inbox."},
	{row: "S53", says: "Presence says whether, and how, somebody can be reached."},
	{row: "S55", says: "Instant messages need no presence."},
	{row: "S56", says: "The kinds of an address are independent of each other."},
	{row: "S62", says: "Push and pull: the same view by subscription and by HTTP."},
	{row: "R2.3.1", says: "The owner controls who can observe, by fetching too."},
	{row: "R2.3.2", says: "The owner controls who can subscribe."},
	{row: "R2.3.3", says: "The owner controls what a watcher sees, fetched or notified."},
	{row: "R2.3.4", says: "The owner controls who else may update."},
	{row: "R2.3.5", says: "The owner of an inbox controls who can send."},
	{row: "R2.3.6", says: "The owner of an inbox controls who can read."},
	{row: "R2.3.7", says: "Access is decided also while the owner is away."},
	{row: "R3.2.1", says: "One can fetch while the owner is out of contact."},
	{row: "R3.2.2", says: "One can subscribe while the owner is out of contact."},
	{row: "R3.2.3", says: "Each watcher is told of a change, unless the rules prevent it."},
	{row: "R3.2.4", says: "That somebody is out of contact is noticed."},
	{row: "R3.2.5", says: "Nothing depends on a graceful end."},
	{row: "R3.3.1", says: "What is shown can be cached."},
	{row: "R3.3.2", says: "Who has a copy learns that it is old."},
	{row: "R3.3.3", says: "A copy gets nobody around the rules."},
	{row: "R5.1.1", says: "A watcher can identify whose presence it is."},
	{row: "R5.1.2", says: "A subscription is not obvious to others."},
	{row: "R5.1.3", says: "An owner can allow subscriptions by nobody in particular."},
	{row: "R5.1.4", says: "A watcher can verify that they are sent all that the owner discloses.", notYet: "notifications have no head (number, hash of the one before, signature): QoS 1 and sessions keep them, and nothing proves it to the watcher"},
	{row: "R5.1.5", says: "An owner can tell that they refuse, or accept and deliver nothing."},
	{row: "R5.1.6", says: "Nobody subscribes for somebody else."},
	{row: "R5.1.7", says: "A watcher can end a subscription at any time."},
	{row: "R5.1.8", says: "Nobody else can end it who may not."},
	{row: "R5.1.9", says: "A watcher is told that a subscription was ended."},
	{row: "R5.1.10", says: "A watcher can ask for the state of a subscription at any time."},
	{row: "R5.1.11", says: "An owner learns of a subscription, at its time and afterwards."},
	{row: "R5.1.12", says: "An owner can identify a watcher."},
	{row: "R5.1.13", says: "An owner can keep out anybody in particular."},
	{row: "R5.1.14", says: "An owner can keep out who shows no name."},
	{row: "R5.1.15", says: "An owner can deny while it looks as if granted."},
	{row: "R5.1.16", says: "An owner can end a subscription at will."},
	{row: "R5.1.17", says: "A watcher’s IP address is not told to the owner."},
	{row: "R5.1.18", says: "The owner’s IP address is not told to a watcher."},
	{row: "ADM-1", says: "An administrator can list the subscriptions to and from a domain, which is audited."},
	{row: "ADM-2", says: "An administrator can cancel any subscription to a domain."},
	{row: "ADM-3", says: "An administrator can create a subscription for an address of the domain, for others only invite."},
	{row: "ADM-4", says: "An administrator’s ceiling forbids or caps, and never widens silently."},
}

const requirementsFile = "../docs/requirements.md"

// Each row is shown by a test that has it in its name, or is listed with the
// reason why none does; docs/requirements.md says so.
func TestRequirements(t *testing.T) {
	tests := rowTests(t)
	var b strings.Builder
	b.WriteString(`# Requirements

Which test shows which row: each speaks to the built program as a client does. Written by ` + "`go test ./blackbox -run TestRequirements -rewrite`" + ` from
the tests' names and comments, and checked by the same test.

| row | what | shown by |
|---|---|---|
`)
	for _, r := range requirements {
		shown := tests[r.row]
		delete(tests, r.row)
		var cell []string
		for _, s := range shown {
			cell = append(cell, fmt.Sprintf("%s: %s", s.name, s.says))
		}
		switch {
		case len(shown) == 0 && r.notYet == "":
			t.Errorf("row %s: no test has it in its name, and no reason is given", r.row)
		case len(shown) > 0 && r.notYet != "":
			t.Errorf("row %s is shown by %s, and said not to be: %s", r.row, shown[0].name, r.notYet)
		case len(shown) == 0:
			cell = []string{"not yet: " + r.notYet}
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", r.row, r.says, strings.Join(cell, "<br>"))
	}
	for row, shown := range tests {
		t.Errorf("%s: row %s is not in the table of requirements", shown[0].name, row)
	}
	if *rewrite {
		if err := os.WriteFile(requirementsFile, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile(requirementsFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(written) != b.String() {
		t.Error("docs/requirements.md is not what the tests say: write it anew (-rewrite) and look at the difference")
	}
}

// A rowTest is a test that shows a row, and the first sentence of its comment.
type rowTest struct{ name, says string }

var (
	rowName       = regexp.MustCompile(`^Test(?:(S)(\d+)|(R)(\d+(?:_\d+)+)|(ADM)(\d))[A-Z]`)
	alsoRows      = regexp.MustCompile(`Also ((?:S\d+|R[\d.]*\d|ADM-\d)(?:,\s(?:S\d+|R[\d.]*\d|ADM-\d))*)\.\s*$`)
	firstSentence = regexp.MustCompile(`(?s)^.*?\.(\s|$)`)
)

// rowsOf returns the rows that a test of this name and comment shows, none if it is
// not one that does.
func rowsOf(name, comment string) (rows []string) {
	m := rowName.FindStringSubmatch(name)
	switch {
	case m == nil:
		return nil
	case m[1] != "":
		rows = append(rows, "S"+m[2])
	case m[3] != "":
		rows = append(rows, "R"+strings.ReplaceAll(m[4], "_", "."))
	default:
		rows = append(rows, "ADM-"+m[6])
	}
	if also := alsoRows.FindStringSubmatch(comment); also != nil {
		for row := range strings.SplitSeq(strings.Join(strings.Fields(also[1]), " "), ", ") {
			rows = append(rows, row)
		}
	}
	return rows
}

// rowTests returns the tests of this package whose names begin with a row.
func rowTests(t *testing.T) map[string][]rowTest {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string][]rowTest{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil {
				continue
			}
			rows := rowsOf(f.Name.Name, f.Doc.Text())
			if rows == nil {
				continue
			}
			says := strings.Join(strings.Fields(firstSentence.FindString(f.Doc.Text())), " ")
			if says == "" {
				t.Errorf("%s has no comment that says what it shows", f.Name.Name)
			}
			for _, row := range rows {
				tests[row] = append(tests[row], rowTest{f.Name.Name, says})
			}
		}
	}
	for _, of := range tests {
		slices.SortFunc(of, func(a, b rowTest) int { return cmp.Compare(a.name, b.name) })
	}
	return tests
}
