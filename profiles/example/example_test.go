package example_test

import (
	"fmt"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/profiles/example"
	"github.com/bellwire/bellwire/profiles/state"
)

// A press tells its health; two watchers see different things of it, because
// its owner says so.
func Example() {
	t := &stdout{}
	defer t.end()
	n := brokertest.New(t, func() []broker.Profile { return []broker.Profile{state.New(example.Health{})} })

	press := n.Connect("press12@plant.example.com")
	press.Publish("$me/policy/health", `{"v":1,"rules":[
		{"id":"all", "if":{"identity":[{"many":{}}]}, "then":{"handling":"allow"}, "show":{"state":true}},
		{"id":"fitters", "if":{"identity":[{"one":"evt:ann@example.net"}]}, "then":{"handling":"allow"}, "show":{"notes":true}}]}`)

	ann, eve := n.Connect("ann@example.net"), n.Connect("eve@example.net")
	for _, watcher := range []*brokertest.Client{ann, eve} {
		watcher.Subscribe("health/plant.example.com/press12", 1)
	}
	n.Settle()
	press.Publish("health/plant.example.com/press12/engine", `{"state":"ok"}`)
	press.Publish("health/plant.example.com/press12/oil", `{"state":"degraded","notes":["oil pressure low"]}`)
	n.Settle()
	for _, watcher := range []*brokertest.Client{ann, eve} {
		fmt.Println(watcher.Principal)
		for _, g := range watcher.Got() {
			fmt.Println(" ", g.Payload)
		}
	}
	// Output:
	// ann@example.net
	//   {"entity":"evt:press12@plant.example.com","state":"unknown"}
	//   {"entity":"evt:press12@plant.example.com","state":"ok"}
	//   {"entity":"evt:press12@plant.example.com","notes":["oil pressure low"],"state":"degraded"}
	// eve@example.net
	//   {"entity":"evt:press12@plant.example.com","state":"unknown"}
	//   {"entity":"evt:press12@plant.example.com","state":"ok"}
	//   {"entity":"evt:press12@plant.example.com","state":"degraded"}
}

// stdout is a brokertest.TB for where there is no *testing.T.
type stdout struct{ cleanups []func() }

func (*stdout) Helper()                           {}
func (*stdout) Logf(format string, args ...any)   { fmt.Printf(format+"\n", args...) }
func (*stdout) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (*stdout) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (t *stdout) Cleanup(f func())                { t.cleanups = append(t.cleanups, f) }

func (t *stdout) end() {
	for _, f := range t.cleanups {
		f()
	}
}
