package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A process is a program that the comparison started: in a session of its own,
// on its own core, and dead as soon as we are.
type process struct {
	cmd    *exec.Cmd
	log    *bytes.Buffer // what it said on standard error; bounded by tail
	exited chan struct{} // closed when it has ended
	err    error         // how it ended; read after exited

	patience time.Duration // how long it has to end by itself
}

// cores are where brokers and generator run; the same core, or none, on a
// machine that has only one.
type cores struct {
	broker, client int
	pinned         bool
}

// pickCores chooses among those this process may use.
func pickCores() cores {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return cores{}
	}
	var may []int
	for i := range 1024 {
		if set.IsSet(i) {
			may = append(may, i)
		}
	}
	if len(may) < 2 {
		return cores{}
	}
	return cores{broker: may[0], client: may[1], pinned: true}
}

// start starts cmd on core, if pinned. Its standard error is kept; its standard
// output too, unless the caller took it.
func (c cores) start(cmd *exec.Cmd, core int) (*process, error) {
	p := &process{cmd: cmd, log: new(bytes.Buffer), exited: make(chan struct{}), patience: stopWithin}
	tail := &tailWriter{to: p.log}
	cmd.Stderr = tail
	if cmd.Stdout == nil {
		cmd.Stdout = tail
	}
	cmd.WaitDelay = time.Second // a grandchild may hold the pipe of what we read
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// A child has the affinity of the thread that forked it, and is killed
		// when that thread ends: so this thread is the child's, and stays with
		// it. Being dirty, it ends with its goroutine.
		runtime.LockOSThread()
		if c.pinned {
			var set unix.CPUSet
			set.Set(core)
			if err := unix.SchedSetaffinity(0, &set); err != nil {
				started <- fmt.Errorf("pinning to core %d: %w", core, err)
				return
			}
		}
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	return p, nil
}

// stopWithin is how long a broker has to end by itself.
const stopWithin = 5 * time.Second

// stop ends the process and all of its session.
func (p *process) stop() {
	pid := p.cmd.Process.Pid
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(p.patience):
	}
	syscall.Kill(-pid, syscall.SIGKILL) // whoever is left of its group
	<-p.exited
	// Killing takes a moment, and they may be writing where we clean up.
	for tries := 0; len(session(pid)) > 0 && tries < 200; tries++ {
		time.Sleep(5 * time.Millisecond)
	}
}

// said returns the last lines that a process which has exited had printed, for
// an error message.
func (p *process) said() string {
	const last = 5
	<-p.exited
	lines := strings.Split(strings.TrimSpace(p.log.String()), "\n")
	return strings.Join(lines[max(len(lines)-last, 0):], "\n")
}

// A tailWriter keeps the last few KiB. os/exec writes to it from one goroutine.
type tailWriter struct{ to *bytes.Buffer }

func (t *tailWriter) Write(b []byte) (int, error) {
	const keep = 4 << 10
	t.to.Write(b)
	if over := t.to.Len() - keep; over > 0 {
		t.to.Next(over)
	}
	return len(b), nil
}

// awaitPort returns when somebody listens on addr.
func (p *process) awaitPort(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.exited:
			return fmt.Errorf("it ended before it listened: %w: %s", cmpErr(p.err), p.said())
		case <-ctx.Done():
			return fmt.Errorf("nobody listens on %s: %w", addr, err)
		case <-tick.C:
		}
	}
}

func cmpErr(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// freePort returns an address on which nobody listens at the moment. A broker
// that cannot choose a port itself is given this one; should somebody else take
// it in between, the broker fails to start and says so.
func freePort() (string, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// look finds a program also where Debian keeps daemons.
func look(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin"} {
		if path, err := exec.LookPath(dir + "/" + name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("missing: %s, apt-get install %s", name, name)
}

// output runs a short command and returns its first line.
func output(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = slices.Concat(os.Environ(), []string{"CGO_ENABLED=0"})
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line), nil
}
