package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/bw"
)

// pubFlags are pub's own flags.
type pubFlags struct {
	client      clientFlags
	topic       string
	message     string
	file        string
	lines       bool // -l
	stdinFile   bool // -s
	null        bool // -n
	retain      bool
	repeat      int
	repeatDelay float64 // seconds
	inFlight    int
}

// maxMessage is the largest payload that MQTT can carry with the longest topic
// (5 [MQTT-1.5.5], 1.5.4).
const maxMessage = 268_435_455 - 65_535 - 16

func pubCommand() *cobra.Command {
	var f pubFlags
	cmd := &cobra.Command{
		Use:   "pub -t TOPIC {-m MESSAGE | -f FILE | -l | -n | -s}",
		Short: "Publish messages",
		Long: `Publishes one message, or one for each line of standard input (-l), and ends
when the server has acknowledged them; at QoS 0, which is the default, nothing is
acknowledged, nor told if it is refused: add -q 1. The flags are those of
mosquitto_pub.`,
		Example: `  bellwire pub -t home/kitchen/temp -m 21.5
  bellwire pub -h broker.example.com -u thermo-17@example.com -P "$TOKEN" -t home/thermo-17/temp -q 1 -m 21.5
  vmstat 1 | bellwire pub -t hosts/web1/vmstat -l`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd)
		},
	}
	flags := cmd.Flags()
	flags.Bool("help", false, "what this verb does")
	flags.SortFlags = false
	flags.StringVarP(&f.topic, "topic", "t", "", "`topic` to publish to")
	flags.StringVarP(&f.message, "message", "m", "", "the `message`")
	flags.StringVarP(&f.file, "file", "f", "", "send the content of this `file`")
	flags.BoolVarP(&f.lines, "stdin-line", "l", false, "send each line of standard input as a message")
	flags.BoolVarP(&f.null, "null-message", "n", false, "send a message of no length; with -r it clears a retained one")
	flags.BoolVarP(&f.stdinFile, "stdin-file", "s", false, "send all of standard input as one message")
	flags.BoolVarP(&f.retain, "retain", "r", false, "retain the message: who subscribes later receives it at once")
	flags.IntVar(&f.repeat, "repeat", 1, "send the message so many `times`, each when the one before is acknowledged")
	flags.Float64Var(&f.repeatDelay, "repeat-delay", 0, "`seconds` to wait between them")
	flags.IntVarP(&f.inFlight, "max-inflight", "M", 64, "with -l: how many `messages` may wait for their acknowledgement")
	f.client.register(flags, pubProperties())
	return cmd
}

func (f *pubFlags) run(cmd *cobra.Command) error {
	ctx := cmd.Context()
	to, packet, err := f.client.resolve(cmd.Flags())
	if err != nil {
		return err
	}
	if f.client.urlTopic != "" && f.topic == "" {
		f.topic = f.client.urlTopic
	}
	next, err := f.source(cmd)
	if err != nil {
		return err
	}
	return f.client.quietly(f.publish(ctx, to, packet, next, cmd.ErrOrStderr()))
}

// publish sends what next returns until it is exhausted.
func (f *pubFlags) publish(ctx context.Context, to target, packet *paho.Connect, next source, stderr io.Writer) error {
	inFlight := f.inFlight
	if !f.lines {
		inFlight = 1 // the next repetition waits for the one before
	}
	p, err := newPublisher(ctx, to, packet, inFlight, f.client.debugTo(stderr))
	if err != nil {
		return err
	}
	var failed error
	for failed == nil {
		payload, err := next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			failed = err
			break
		}
		m := &paho.Publish{Topic: f.topic, QoS: byte(f.client.qos), Retain: f.retain, Payload: payload}
		m.InitProperties(f.client.props.of("publish"))
		failed = p.publish(ctx, m)
	}
	o, lost := p.finish(ctx, f.client.disconnectPacket())
	if err := o.verdict(stderr, lost); err != nil {
		return err
	}
	return failed
}

// A source returns the next payload, or io.EOF.
type source func(context.Context) ([]byte, error)

// source checks the flags that choose the message and returns where it comes
// from. Files are read now, so that a wrong name opens no connection.
func (f *pubFlags) source(cmd *cobra.Command) (source, error) {
	flags := cmd.Flags()
	if f.topic == "" {
		return nil, fail(bw.Usage, "no topic to publish to").do("add -t TOPIC")
	}
	if err := topic.ValidName(f.topic); err != nil {
		return nil, fail(bw.Usage, "-t %q cannot be published to: %w", f.topic, err).do("name one topic, such as -t home/kitchen/temp")
	}
	chosen := 0
	for _, name := range []string{"message", "file", "stdin-line", "null-message", "stdin-file"} {
		if flags.Changed(name) {
			chosen++
		}
	}
	switch {
	case chosen == 0:
		return nil, fail(bw.Usage, "no message").do("add one of -m MESSAGE, -f FILE, -l, -n, -s")
	case chosen > 1:
		return nil, usage("only one of -m, -f, -l, -n and -s can be the message")
	case f.repeat < 1:
		return nil, usage("--repeat %d: want at least 1", f.repeat)
	case f.repeatDelay < 0:
		return nil, usage("--repeat-delay %g: want 0 or more", f.repeatDelay)
	case f.inFlight < 1 || f.inFlight > 65535:
		return nil, usage("--max-inflight %d: want 1 to 65535", f.inFlight)
	case f.lines && f.repeat != 1:
		return nil, usage("--repeat goes with one message, not with -l")
	}
	if f.lines {
		return lineSource(cmd.InOrStdin()), nil
	}
	payload, err := f.payload(cmd.InOrStdin())
	if err != nil {
		return nil, err
	}
	return repeatSource(payload, f.repeat, time.Duration(f.repeatDelay*float64(time.Second))), nil
}

func (f *pubFlags) payload(stdin io.Reader) ([]byte, error) {
	in, name := stdin, "standard input"
	switch {
	case f.null:
		return nil, nil
	case f.file != "":
		file, err := os.Open(f.file)
		if err != nil {
			return nil, fail(bw.File, "cannot read the message: %w", err)
		}
		defer file.Close()
		in, name = file, f.file
	case !f.stdinFile:
		return []byte(f.message), nil
	}
	payload, err := io.ReadAll(io.LimitReader(in, maxMessage+1))
	if err != nil {
		return nil, fail(bw.File, "cannot read the message from %s: %w", name, err)
	}
	if len(payload) > maxMessage {
		return nil, fail(bw.Limit, "%s is larger than the %d bytes that an MQTT message can have", name, maxMessage)
	}
	return payload, nil
}

// repeatSource returns payload n times, and waits between two of them.
func repeatSource(payload []byte, n int, delay time.Duration) source {
	sent := 0
	return func(ctx context.Context) ([]byte, error) {
		if sent == n {
			return nil, io.EOF
		}
		if sent > 0 && delay > 0 {
			select {
			case <-time.After(delay):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		sent++
		return payload, nil
	}
}

// lineSource returns the lines of r without their ends. The reading goroutine
// is one line ahead and lives until r ends: nothing can interrupt a read from
// a terminal.
func lineSource(r io.Reader) source {
	type read struct {
		line []byte
		err  error
	}
	lines := make(chan read)
	stop := make(chan struct{})
	go func() {
		in := bufio.NewReaderSize(r, 64<<10)
		for {
			line, err := readLine(in)
			select {
			case lines <- read{line, err}:
			case <-stop:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return func(ctx context.Context) ([]byte, error) {
		select {
		case l := <-lines:
			return l.line, l.err
		case <-ctx.Done():
			close(stop)
			return nil, ctx.Err()
		}
	}
}

// readLine returns the next line, which is a copy. The last one need not end
// in a newline; io.EOF comes after it.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxMessage:
			return nil, fail(bw.Limit, "a line of standard input is larger than the %d bytes that an MQTT message can have", maxMessage)
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return line, nil
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		default:
			return nil, fail(bw.File, "cannot read standard input: %w", err)
		}
	}
}

// debugTo returns where paho's debug lines go; nil for nowhere.
func (c *clientFlags) debugTo(stderr io.Writer) io.Writer {
	if c.debug {
		return stderr
	}
	return nil
}

// quietly leaves only the exit code of err, if --quiet asks for that.
func (c *clientFlags) quietly(err error) error {
	f, ok := errors.AsType[*fault](err)
	if !c.quiet || !ok {
		return err
	}
	return exitCode(exitOf(f.code))
}
