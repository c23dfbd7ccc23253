// Package letter judges once more what the server decides: who may do what by the
// operator's policy, and who is shown what by an owner's. It reads the same documents by
// itself and answers by the letter of the requirements, from the beginning each time:
// nothing is compiled, indexed, cached or searched for, and there are no edges, for it
// only ever answers for one instant. That makes it slow, and easy to believe.
//
// It serves tests alone, and imports no room of the server: a fault that both have must
// have been made twice. What it does not know of a document it refuses, so that a test
// cannot pass over something by not understanding it.
//
// Random makes up documents that it can read, for tests that compare.
package letter
