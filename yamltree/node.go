package yamltree

// A Node is a value of a YAML file. Aliases are resolved: a node may have more
// than one parent, but never itself among its children.
type Node struct {
	Kind Kind
	Pos  Pos     // where it begins; zero for what is not there
	Text string  // of a Scalar, whatever YAML takes its type for
	List []*Node // of a List
	Keys []Key   // of a Table, as in the file: there may be equal ones

	empty bool // it is Null where it must not be, and that has been reported
}

// A Kind is a form that a value can have.
type Kind uint8

const (
	Null   Kind = iota // nothing, or the word null
	Scalar             // a single value
	List
	Table // a mapping
)

func (k Kind) String() string {
	return [...]string{"nothing", "a single value", "a list", "a mapping"}[k]
}

// A Key is a key of a Table with its value, which is never nil.
type Key struct {
	Name  string
	Pos   Pos
	Value *Node
}

// A Pos is a place in a file: lines and columns count from 1, columns in
// characters. Line 0 is no place.
type Pos struct{ Line, Column int }
