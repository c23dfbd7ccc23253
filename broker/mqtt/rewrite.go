package mqtt

import "github.com/bellwire/bellwire/broker"

// Topics that the policy has others stand for.
//
// What a client publishes to, its will, and what it subscribes to and unsubscribes from are
// rewritten as they come, by the policy in force then, before anybody is asked whether they
// are permitted: that is judged of what they are rewritten to. An alias stands for the topic
// that the client named with it, which is rewritten each time. What is sent to clients is not
// rewritten back; Response Topics and what else they may say of topics in properties are
// theirs.

// rewrite returns the topic that is meant by name, which is valid, or why there is none.
func (c *conn) rewrite(who broker.Who, what broker.Action, name string) (string, error) {
	p, ok := c.srv.policy().(broker.Rewriter)
	if !ok {
		return name, nil
	}
	to, err := p.Rewrite(who, what, name)
	if err != nil {
		return name, &broker.Refusal{Cause: broker.ErrTopicName, Reason: err.Error()}
	}
	return to, nil
}

// who is the client once it is connected. For the reading goroutine.
func (c *conn) who() broker.Who { return broker.Who{Principal: c.principal, Client: c.client} }
