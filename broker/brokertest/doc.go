// Package brokertest tests profiles: it runs them in a real broker, on a file
// system in memory and a log of one node, with a clock that the test moves.
//
// By hand, as a conversation:
//
//	n := brokertest.New(t, func() []broker.Profile { return []broker.Profile{state.New(mine{})} })
//	bob, ann := n.Connect("bob@example.com"), n.Connect("ann@example.net")
//	ann.Subscribe("mine/example.com/bob", 1)
//	bob.Publish("mine/example.com/bob", `{"is":"here"}`)
//	n.Settle()
//	last := ann.Shown("mine/example.com/bob")
//
// and with histories made up at random, against what every profile owes its
// owners and its watchers (TestProfile):
//
//	func TestProfile(t *testing.T) { brokertest.TestProfile(t, brokertest.Suite{New: …, Publish: …, Policy: …}) }
package brokertest
