package blackbox

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	paho5 "github.com/eclipse/paho.golang/paho"
)

// Programs on paho.golang share what is published: three members of a group with durable
// sessions, each begun at another node, while the nodes are killed one after the other and
// all clients roam. What was acknowledged to the publisher at QoS 1 reaches a member; at
// QoS 2 exactly one, once. All of them take part.
func TestClusterSharedGroupOfPaho(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var mu sync.Mutex
	taken := map[string][]int{} // topic and payload to the members that were handed it
	each := make([]int, clusterSize)
	for i := range clusterSize {
		member := roam(t, fmt.Sprint("paho-member", i), c.addresses(i), func(c *autopaho.ClientConfig) {
			c.OnPublishReceived = []func(paho5.PublishReceived) (bool, error){func(r paho5.PublishReceived) (bool, error) {
				mu.Lock()
				defer mu.Unlock()
				key := r.Packet.Topic + " " + string(r.Packet.Payload)
				taken[key] = append(taken[key], i)
				each[i]++
				return true, nil
			}}
		})
		if _, err := member.Subscribe(ctx, &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{Topic: "$share/workers/jobs/#", QoS: 2}}}); err != nil {
			t.Fatal(err)
		}
	}
	// arrived says how many of a topic's events are with somebody.
	arrived := func(topic string) (n int) {
		mu.Lock()
		defer mu.Unlock()
		for key := range taken {
			if key[:len(topic)] == topic {
				n++
			}
		}
		return n
	}
	stop := make(chan struct{})
	var publishers sync.WaitGroup
	topics := []string{"jobs/q1", "jobs/q2"}
	sent := make([]int, len(topics))
	for i, topic := range topics {
		pub := roam(t, fmt.Sprint("paho-boss", i), c.addresses(i+1), nil)
		publishers.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for n := 1; ; n++ {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				m := &paho5.Publish{Topic: topic, QoS: byte(1 + i), Payload: fmt.Append(nil, n)}
				if err := pub.PublishViaQueue(ctx, &autopaho.QueuePublish{Publish: m}); err != nil {
					t.Error(err)
					return
				}
				sent[i] = n
			}
		})
	}
	more := func() {
		t.Helper()
		for _, topic := range topics {
			want := arrived(topic) + 50
			until(t, "50 more of "+topic, time.Minute, func() bool { return arrived(topic) >= want })
		}
	}
	for i := range clusterSize {
		more()
		c.nodes[i].kill()
		more()
		c.nodes[i].start()
		c.await("three voters that answer", allVote)
	}
	close(stop)
	publishers.Wait()
	for i, topic := range topics {
		until(t, "all of "+topic+" are with somebody", time.Minute, func() bool { return arrived(topic) == sent[i] })
	}
	c.alike() // what was to come again has been ordered by then
	mu.Lock()
	defer mu.Unlock()
	again := 0
	for key, members := range taken {
		if len(members) == 1 {
			continue
		}
		if again++; key[:len(topics[1])] == topics[1] {
			t.Errorf("%s, at QoS 2, was handed to %v", key, members)
		}
	}
	t.Logf("%d at QoS 1, %d of them more than once; %d at QoS 2; the members were handed %v", sent[0], again, sent[1], each)
	for i, n := range each {
		if n == 0 {
			t.Errorf("member %d was handed nothing", i)
		}
	}
}
