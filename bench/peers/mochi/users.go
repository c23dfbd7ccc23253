package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// A user is somebody who may sign in, publish to one topic, and see those that
// begin with a prefix; none if it is empty.
type user struct{ Token, Publish, Subscribe string }

// usersHook lets the users of a file do what it says. Mochi leaves permissions
// to such hooks; the ledger that comes with it tries all its rules in no order.
type usersHook struct {
	mqtt.HookBase
	users map[string]user
}

func readUsers(path string) (*usersHook, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	h := new(usersHook)
	if err := json.Unmarshal(b, &h.users); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return h, nil
}

func (h *usersHook) ID() string { return "users" }

func (h *usersHook) Provides(b byte) bool {
	return b == mqtt.OnConnectAuthenticate || b == mqtt.OnACLCheck
}

func (h *usersHook) OnConnectAuthenticate(_ *mqtt.Client, pk packets.Packet) bool {
	u, ok := h.users[string(pk.Connect.Username)]
	return ok && bytes.Equal(pk.Connect.Password, []byte(u.Token))
}

func (h *usersHook) OnACLCheck(c *mqtt.Client, topic string, write bool) bool {
	u := h.users[string(c.Properties.Username)]
	if write {
		return topic == u.Publish
	}
	return u.Subscribe != "" && strings.HasPrefix(topic, u.Subscribe)
}
