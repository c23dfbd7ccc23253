package blackbox

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// A volume is an ext4 file system in a file, mounted through a loop device,
// whose power can be cut: from then on every operation fails, and what was not
// synced is gone when it is mounted again.
type volume struct {
	t     testing.TB
	image string
	at    string // where it is mounted
}

func newVolume(t testing.TB) *volume {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("missing: root, to mount a file system whose power can be cut; run the tests as root")
	}
	for _, program := range []string{"mkfs.ext4", "losetup", "mount"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("missing: %s, apt-get install e2fsprogs mount", program)
		}
	}
	dir := t.TempDir()
	v := &volume{t: t, image: filepath.Join(dir, "image"), at: filepath.Join(dir, "mnt")}
	if err := os.Mkdir(v.at, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(v.image)
	if err == nil {
		err = errors.Join(f.Truncate(512<<20), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", v.image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	if out, err := v.mount(); err != nil {
		if strings.Contains(string(out), "loop") {
			t.Skipf("missing: loop devices: %s", bytes.TrimSpace(out))
		}
		t.Fatalf("mount: %v\n%s", err, out)
	}
	t.Cleanup(func() { v.unmount() })
	return v
}

func (v *volume) mount() ([]byte, error) {
	return exec.Command("mount", "-o", "loop", v.image, v.at).CombinedOutput()
}

// unmount tries for a while: a program that another test is just starting may have
// a file open here until it runs.
func (v *volume) unmount() {
	v.t.Helper()
	var out []byte
	var err error
	for began := time.Now(); time.Since(began) < patience; pause() {
		out, err = exec.Command("umount", v.at).CombinedOutput()
		if err == nil || strings.Contains(string(out), "not mounted") {
			return
		}
	}
	v.t.Errorf("umount: %v\n%s", err, out)
}

// cut ends all power: EXT4_IOC_SHUTDOWN without flushing the journal.
func (v *volume) cut() {
	v.t.Helper()
	d, err := os.Open(v.at)
	if err != nil {
		v.t.Fatal(err)
	}
	defer d.Close()
	const shutdown, noLogFlush = 0x8004587d, 2
	if err := ioctl(d.Fd(), shutdown, noLogFlush); err != nil {
		v.t.Fatalf("cutting the power of %s: %v", v.at, err)
	}
}

// replug mounts again what is on the disk.
func (v *volume) replug() {
	v.t.Helper()
	v.unmount()
	if out, err := v.mount(); err != nil {
		v.t.Fatalf("mounting after the power cut: %v\n%s", err, out)
	}
}

// The instrument works: what was synced is there after a cut, what was only
// written is not. Without this the test below would show nothing.
func TestPowerCutLosesWhatIsNotSynced(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	write := func(name string, sync bool) {
		t.Helper()
		f, err := os.Create(filepath.Join(v.at, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(name); err != nil {
			t.Fatal(err)
		}
		if sync {
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("synced", true)
	write("written", false)
	v.cut()
	if _, err := os.Create(filepath.Join(v.at, "after")); err == nil {
		t.Error("a file can be made after the cut")
	}
	v.replug()
	if got, err := os.ReadFile(filepath.Join(v.at, "synced")); err != nil || string(got) != "synced" {
		t.Errorf("what was synced: got %q, %v", got, err)
	}
	if got, _ := os.ReadFile(filepath.Join(v.at, "written")); len(got) > 0 {
		t.Errorf("what was only written survived: %q", got)
	}
}

// The power of the disk is cut under load: the process ends, and after the
// disk is back everything that was acknowledged is delivered, in order.
func TestPowerCutUnderLoad(t *testing.T) {
	t.Parallel()
	underSeeds(t, 12, func(t *testing.T, rng *rand.Rand) {
		v := newVolume(t)
		s := serveIn(t, filepath.Join(v.at, "data"), "--allow-anonymous")
		l := newLoad(t, s, 4)
		l.start()
		for range 2 {
			l.await(50 + rng.Int64N(1000))
			v.cut()
			s.ended = true // by itself or by us, but it has to go
			s.end(syscall.SIGKILL)
			v.replug()
			s.start()
			l.addr.Store(s.ready.MQTT)
		}
		l.finish()
		s.kill() // before the volume is unmounted
	})
}

// The process does not outlive its disk: it ends by itself, with an error.
func TestPowerCutEndsTheProcess(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	s := serveIn(t, filepath.Join(v.at, "data"), "--allow-anonymous")
	c := s.open(v5, clean("c"))
	c.Publish("t", 1, "x")
	v.cut()
	c.TrySend(publishTo("t", "x")) // something to write
	s.awaitDeath()
}

// A real full disk: publishes are refused before the write fails, the process
// lives, and serves again when there is room.
func TestPowerCutVolumeFull(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	s := serveIn(t, filepath.Join(v.at, "data"), "--allow-anonymous")
	sub := s.open(v5, durable(v5, "sub"))
	sub.Subscribe("t", 1)
	sub.Disconnect()
	c := s.open(v5, clean("c"))
	c.Publish("t", 1, "before")

	ballast := filepath.Join(v.at, "ballast")
	fill(t, ballast)
	until(t, "publishes are refused", patience, func() bool {
		return c.TryPublish(publishTo("u", "x")) == 0x97
	})
	s.checkAlive()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	until(t, "publishes are accepted again", patience, func() bool {
		return c.TryPublish(publishTo("t", "after")) == 0
	})
	sub = s.open(v5, durable(v5, "sub"))
	sub.ReceiveAll("before", "after")
	s.kill()
}

// Who publishes as fast as it goes is refused before a small volume is full: what memtables
// have yet to write is reckoned with. The node lives, goes on through a crash, and has all
// that it acknowledged.
func TestMQTT15DiskFillsByPublishes(t *testing.T) {
	t.Parallel()
	at := smallVolume(t, "256m")
	s := serveIn(t, filepath.Join(at, "data"), "--allow-anonymous")
	c := s.open(v5, clean("c"))
	m := mq.Publish{QoS: 1, Retain: true, Payload: make([]byte, 100<<10)}
	kept := 0
	for ; ; kept++ {
		m.Topic = fmt.Sprintf("t/%d", kept)
		if code := c.TryPublish(m); code == 0x97 {
			break
		} else if code != 0 && code != 0x10 {
			t.Fatalf("publish %d: code %#x", kept, code)
		}
	}
	if least := 300; kept < least {
		t.Errorf("%d events of 100 KiB were taken before the disk was nearly full, want %d at least", kept, least)
	}
	s.checkAlive()
	s.kill()
	s.start()
	sub := s.open(v5, clean("sub"))
	sub.Subscribe("t/#", 1)
	for got := map[string]bool{}; len(got) < kept; {
		p := sub.Receive()
		if len(p.Payload) != len(m.Payload) {
			t.Fatalf("%s came back with %d bytes, want %d", p.Topic, len(p.Payload), len(m.Payload))
		}
		got[p.Topic] = true
	}
	s.kill() // before its disk goes
}

// What queues have filled a disk with leaves it when it was fetched, though that writes too
// little to have anything flushed by itself.
func TestMQTT15RoomComesBack(t *testing.T) {
	t.Parallel()
	at := smallVolume(t, "1g")
	s := serveIn(t, filepath.Join(at, "data"), "--allow-anonymous", "--limits", limitsFile(t, "v: 1\ndefault: {disk.lowWater: 850MiB}\n"))
	sub := s.open(v5, durable(v5, "sub"))
	sub.Subscribe("t", 1)
	sub.Disconnect()
	c := s.open(v5, clean("c"))
	noise := rand.NewChaCha8([32]byte{1})
	m := mq.Publish{Topic: "t", QoS: 1, Payload: make([]byte, 200<<10)}
	kept := 0
	for ; ; kept++ {
		_, _ = noise.Read(m.Payload)
		if code := c.TryPublish(m); code == 0x97 {
			break
		} else if code != 0 {
			t.Fatalf("publish %d: code %#x", kept, code)
		}
	}
	sub = s.open(v5, durable(v5, "sub"))
	for range kept {
		sub.Receive()
	}
	until(t, "publishes are accepted again", patience, func() bool { return c.TryPublish(m) == 0 })
	sub.Receive()
	s.kill() // before its disk goes
}

// smallVolume mounts a file system of that size, in memory.
func smallVolume(t testing.TB, size string) (at string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("missing: root, to mount a small file system; run the tests as root")
	}
	at = t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "none", at).CombinedOutput(); err != nil {
		t.Skipf("missing: mounts: %s", bytes.TrimSpace(out))
	}
	t.Cleanup((&volume{t: t, at: at}).unmount)
	return at
}

// fill writes until the file system has nothing left.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4 << 10} {
		chunk := make([]byte, size)
		for {
			if _, err := f.Write(chunk); errors.Is(err, syscall.ENOSPC) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}
