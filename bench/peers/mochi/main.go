// Mochi runs a mochi-mqtt server as the comparison wants it: default options,
// everybody allowed or the users of a file, and, if asked, its Pebble store,
// synced or not.
package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/hooks/storage/pebble"
	"github.com/mochi-mqtt/server/v2/listeners"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:1883", "where to listen")
	dir := flag.String("store", "", "directory of the Pebble store; empty keeps nothing")
	sync := flag.Bool("sync", false, "sync the store on every write")
	users := flag.String("users", "", "file of users, as JSON; empty lets everybody do everything")
	flag.Parse()
	if err := run(*addr, *dir, *sync, *users); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(addr, dir string, sync bool, users string) error {
	s := mqtt.New(&mqtt.Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if users == "" {
		if err := s.AddHook(new(auth.AllowHook), nil); err != nil {
			return err
		}
	} else {
		h, err := readUsers(users)
		if err != nil {
			return err
		}
		if err := s.AddHook(h, nil); err != nil {
			return err
		}
	}
	if dir != "" {
		mode := pebble.NoSync
		if sync {
			mode = pebble.Sync
		}
		if err := s.AddHook(new(pebble.Hook), &pebble.Options{Path: dir, Mode: mode}); err != nil {
			return err
		}
	}
	if err := s.AddListener(listeners.NewTCP(listeners.Config{ID: "t", Address: addr})); err != nil {
		return err
	}
	if err := s.Serve(); err != nil {
		return err
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM)
	<-end
	return s.Close()
}
