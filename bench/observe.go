package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// trace attaches strace to the broker, when asked, to count its syncs. The
// function it returns detaches it and gives the count. What a traced broker
// costs means nothing, so the line does not count.
func (c *comparison) trace(l *Line, all fleet) (end func() (syncs float64, ok bool)) {
	none := func() (float64, bool) { return 0, false }
	if !c.Strace || all[0].http != "" || len(all) > 1 {
		return none
	}
	b := all[0]
	l.Fault = "traced: its times mean nothing, its syncs do"
	path := filepath.Join(c.work, "strace")
	os.Remove(path)
	cmd := exec.Command("strace", "-f", "-c", "-e", "trace=fsync,fdatasync,sync_file_range,msync", "-o", path,
		"-p", strconv.Itoa(b.cmd.Process.Pid))
	p, err := cores{}.start(cmd, 0)
	if err != nil {
		l.Fault = "strace: " + err.Error()
		return none
	}
	return func() (float64, bool) {
		p.cmd.Process.Signal(syscall.SIGINT) // it detaches and writes its table
		select {
		case <-p.exited:
		case <-time.After(stopWithin):
			p.stop()
		}
		f, err := os.Open(path)
		if err != nil {
			return 0, false
		}
		defer f.Close()
		return straceCount(f), true
	}
}

// straceCount sums the calls of fsync and fdatasync in the table of strace -c.
func straceCount(r io.Reader) (calls float64) {
	in := bufio.NewScanner(r)
	for in.Scan() {
		f := strings.Fields(in.Text()) // % time, seconds, usecs/call, calls, [errors,] name
		if len(f) < 5 || (f[len(f)-1] != "fsync" && f[len(f)-1] != "fdatasync") {
			continue
		}
		if n, err := strconv.ParseFloat(f[3], 64); err == nil {
			calls += n
		}
	}
	return calls
}

// profileOf takes a CPU profile of each node of a bellwire while it is under load,
// and keeps them beside the results. The function it returns waits for their end.
func (c *comparison) profileOf(ctx context.Context, all fleet, l *Line) (wait func()) {
	if !c.Profile || all[0].http == "" || c.stem == "" || l.Run != 1 {
		return func() {}
	}
	ctx, cancel := context.WithTimeout(ctx, c.measuring(l.Scenario)+c.WarmUp+20*time.Second)
	var done sync.WaitGroup
	for i, b := range all {
		path := fmt.Sprintf("%s-%s-%s", c.stem, l.Scenario.Name, l.Broker)
		if len(all) > 1 {
			path += fmt.Sprintf("-node%d", i+1)
		}
		url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", b.http, int((c.measuring(l.Scenario)+c.WarmUp)/time.Second))
		done.Go(func() {
			if err := download(ctx, url, path+".pprof"); err != nil {
				fmt.Fprintf(c.Log, "no profile: %v\n", err)
			}
		})
	}
	return func() { done.Wait(); cancel() }
}

func download(ctx context.Context, url, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, resp.Body)
	return err
}
