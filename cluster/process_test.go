package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/internal/effort"
)

// A test that wants a process to end starts this test's program again as a child.
const childVar = "BELLWIRE_CLUSTER_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVar); dir != "" {
		child(dir, disk.Fault(os.Getenv(childVar+"_FAULT")))
	}
	// Raft does not answer futures that are in flight when it is shut down
	// after Patience is over: the goroutine that waits for one stays.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/raft.(*deferError).Error"))
}

const (
	exitDied    = 3 // the child's Die was called
	faultAfter  = 50
	childEndure = 60 * time.Second

	childStall = 3 * time.Second // of a disk that is to hang
)

// child runs a node under load in dir. It prints the number of each batch that is
// applied, and after some of them the disk fails. It does not return.
func child(dir string, fault disk.Fault) {
	r := newRig(fatal{}, disk.Open(dir), dir)
	r.cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	r.cfg.Stall = time.Minute // a real sync on a disk with other work is no hang
	if fault == disk.Hang {
		r.cfg.Stall = childStall
	}
	r.cfg.Die = func(reason string) { os.Exit(exitDied) }
	r.start()
	applied := 0
	next := make(chan struct{}, 1000)
	r.toy.mu.Lock()
	r.toy.heard = func(_ uint64, _ int64, batch []byte) {
		fmt.Println(batchNumber(batch))
		if applied++; applied == faultAfter && fault != "" {
			r.fs.SetFault(fault)
		}
		next <- struct{}{}
	}
	first := int(r.toy.at.count)
	r.toy.mu.Unlock()
	time.AfterFunc(childEndure, func() { os.Exit(1) })
	for i := first; ; i++ {
		r.node.Submit(append(numbered(i), make([]byte, 500)...), func(err error) { panic(err) })
		if i-first >= 20 { // so many are on their way
			<-next
		}
	}
}

func batchNumber(b []byte) string {
	n := uint64(0)
	for _, c := range b[:8] {
		n = n<<8 | uint64(c)
	}
	return strconv.FormatUint(n, 10)
}

// fatal is a testing.TB for the child: all it can do is end it.
type fatal struct{ testing.TB }

func (fatal) Helper()        {}
func (fatal) Fatal(a ...any) { fmt.Fprintln(os.Stderr, a...); os.Exit(1) }
func (fatal) Error(a ...any) { fmt.Fprintln(os.Stderr, a...); os.Exit(1) }

// runChild runs a child in dir until it ends, or until it has printed kill numbers
// and is killed (kill 0: it is not). It returns the last number that it printed
// whole, what it logged, and its exit code.
func runChild(t *testing.T, dir string, fault disk.Fault, kill int) (last int, log string, code int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVar+"="+dir, childVar+"_FAULT="+string(fault))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last = -1
	lines := bufio.NewReader(out)
	for seen := 1; ; seen++ {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // half a line was not acknowledged
		}
		if last, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
			t.Errorf("the child printed %q", line)
		}
		if seen == kill {
			cmd.Process.Kill()
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return last, stderr.String(), cmd.ProcessState.ExitCode()
}

// wantBatches starts a node in dir and checks that its Machine has applied batches
// up to last at least, each once and in order: the Machine's own count says so,
// since each is applied at the place of its number.
func wantBatches(t *testing.T, dir string, last int) {
	t.Helper()
	r := newRig(t, disk.Open(dir), dir)
	r.start()
	defer r.stop()
	count := int(r.toy.position().count)
	if count < last+1 {
		t.Errorf("%d batches after a restart, %d were acknowledged", count, last+1)
	}
	if newest := r.toy.newest(t); newest != fmt.Sprint(count-1) {
		t.Errorf("batch %s is the newest of %d", newest, count)
	}
}

// A disk that fails, fills up or hangs under a node ends its process, loudly and at
// once, and nothing that was acknowledged is lost.
func TestDiskFaultEndsTheProcess(t *testing.T) {
	for fault, says := range map[disk.Fault]string{
		disk.EIO:     "input/output error",
		disk.NoSpace: "no space left on device",
		disk.Hang:    childStall.String(),
	} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "data")
			last, log, code := runChild(t, dir, fault, 0)
			if code != exitDied {
				t.Errorf("exit code %d, want %d\n%s", code, exitDied, log)
			}
			if !strings.Contains(log, "level=ERROR") || !strings.Contains(log, says) {
				t.Errorf("it says\n%s\nwant an error with %q", log, says)
			}
			if last < faultAfter/2 {
				t.Errorf("ended after batch %d: too early", last)
			}
			wantBatches(t, dir, last)
		})
	}
}

// kill -9 under load, again and again: nothing that was acknowledged is lost or
// reordered.
func TestKilledUnderLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for i := range effort.Turns(t) {
		last, log, code := runChild(t, dir, "", 100+137*i%400)
		if code != -1 {
			t.Fatalf("exit code %d\n%s", code, log)
		}
		wantBatches(t, dir, last)
	}
}
