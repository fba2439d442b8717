package tracer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"thaw/internal/fdpass"
	"thaw/restore/tracer/trace"
)

// answerTime bounds how long the helper may take to begin. It takes a tenth of a second or two, unless the machine swaps.
const answerTime = 30 * time.Second

// helperCommand is what Start runs this program with, and confined what it then runs itself with.
const (
	helperCommand = "tracer"
	confined      = "confined"
)

// A Client has touches recorded by a helper process, which has the privileges that this one does not need then.
//
// Stop and Choose may be called at any time; everything else is for one goroutine.
type Client struct {
	cmd    *exec.Cmd
	conn   *net.UnixConn // requests and answers
	stream *net.UnixConn // what is recorded
	done   chan struct{} // closed when the process has been reaped
	exited error         // how it ended; set before done is closed
	info   Info

	// Owned by the goroutine that calls Next.
	buf    []byte // of a packet
	events []byte // of the packet that was read last, what has not been returned
	ending trace.Ending

	asking sync.Mutex // held until a request has its answer
	lost   error      // the answer of one did not come, and no other can be told from it; guarded by asking
}

// Start runs the helper, which begins to record, and returns when it does; with Target.Later, when it is ready to. nil options mean the defaults; ctx bounds the
// start only. The errors are those of NewRecorder, told by the helper; or one that wraps ErrGone.
//
// The helper has a session of its own, so that no signal from a terminal reaches it. It inherits standard error, and ends
// with Close, or with this process. A goroutine waits for it.
func Start(ctx context.Context, t Target, opts *Options) (*Client, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	var group *os.File
	if t.Cgroup != "" {
		var err error
		if group, err = openCgroup(t.Cgroup); err != nil {
			return nil, err
		}
		defer group.Close()
	}
	o := opts.withDefaults()
	c := &Client{cmd: command(o.Command), done: make(chan struct{}), buf: make([]byte, maxMessage+1)}
	if err := c.spawn(); err != nil {
		return nil, fmt.Errorf("start tracer: %w", err)
	}
	if err := c.begin(ctx, startBody{uint32(o.RingBytes), uint32(o.MaxPages), group != nil, sorted(t.PIDs)}, group); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func command(argv []string) *exec.Cmd {
	var cmd *exec.Cmd
	if len(argv) > 0 {
		cmd = exec.Command(argv[0], argv[1:]...)
	} else {
		// Not by its path, where another version may have been installed since.
		cmd = exec.Command("/proc/self/exe", helperCommand)
		cmd.Args[0] = os.Args[0]
	}
	cmd.Stderr = os.Stderr
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

func (c *Client) spawn() error {
	var theirs [2]*os.File
	for i, ours := range []**net.UnixConn{&c.conn, &c.stream} {
		var err error
		if *ours, theirs[i], err = socketPair(); err != nil {
			return errors.Join(err, c.hangUp())
		}
		defer theirs[i].Close()
	}
	c.cmd.ExtraFiles = theirs[:]
	if err := c.cmd.Start(); err != nil {
		return errors.Join(err, c.hangUp())
	}
	go func() {
		c.exited = c.cmd.Wait()
		close(c.done)
	}()
	return nil
}

// socketPair returns two ends of a socket of packets.
func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs = os.NewFile(uintptr(pair[1]), "tracer's end")
	if ours, err = connOf(pair[0]); err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// hangUp closes our ends.
func (c *Client) hangUp() error {
	var errs []error
	for _, conn := range []*net.UnixConn{c.conn, c.stream} {
		if conn != nil {
			errs = append(errs, conn.Close())
		}
	}
	return errors.Join(errs...)
}

// connOf makes a connection of a socket, which it closes.
func connOf(fd int) (*net.UnixConn, error) {
	file := os.NewFile(uintptr(fd), "socket of tracer")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok || conn.LocalAddr().Network() != "unixpacket" {
		conn.Close()
		return nil, errors.New("not a socket of packets")
	}
	return unixConn, nil
}

// begin asks for the recording, and waits until it runs.
func (c *Client) begin(ctx context.Context, s startBody, group *os.File) (err error) {
	c.conn.SetDeadline(time.Now().Add(answerTime))
	cancel := context.AfterFunc(ctx, func() { c.conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !cancel() {
			err = context.Cause(ctx) // and its deadline may yet be set
		}
		c.conn.SetDeadline(time.Time{})
	}()
	if k, _, err := receive(c.conn, c.buf); err != nil {
		return err
	} else if k != kindHello {
		return fmt.Errorf("start tracer: %w: greeting of kind %d", errMalformed, k)
	}
	if err := c.sendStart(s, group); err != nil {
		return fmt.Errorf("start tracer: %w: %w", ErrGone, err)
	}
	k, body, err := receive(c.conn, c.buf)
	switch {
	case err != nil:
		return err
	case k == kindRefused:
		return parseRefused(body)
	case k == kindStarted:
		c.info, err = parseStarted(body)
		return err
	}
	return fmt.Errorf("start tracer: %w: answer of kind %d", errMalformed, k)
}

func (c *Client) sendStart(s startBody, group *os.File) error {
	if _, err := c.conn.Write(s.append(packet(kindStart))); err != nil || group == nil {
		return err
	}
	defer runtime.KeepAlive(group)
	_, _, err := c.conn.WriteMsgUnix(packet(kindCgroup), unix.UnixRights(int(group.Fd())), nil)
	return err
}

// receive returns the next packet, whose body lies in buf.
func receive(conn *net.UnixConn, buf []byte) (kind, []byte, error) {
	m, err := fdpass.Receive(conn, buf, 0)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, nil, fmt.Errorf("%w: it does not answer", ErrGone)
	case errors.Is(err, io.EOF): // which would mean that all is well
		return 0, nil, fmt.Errorf("%w: it closed its socket", ErrGone)
	case err != nil:
		return 0, nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	return parse(buf[:m.N])
}

// Choose records more processes, as Recorder.Choose does and with its errors; if the helper is gone without an end of the
// recording, the error wraps ErrGone. It does not depend on Next being called.
//
// If ctx ends before the helper has answered, the processes may be recorded or not, and no more can be chosen.
func (c *Client) Choose(ctx context.Context, pids ...int) (at time.Duration, err error) {
	if err := checkPIDs(pids); err != nil {
		return 0, err
	}
	c.asking.Lock()
	defer c.asking.Unlock()
	if c.lost != nil {
		return 0, fmt.Errorf("choose processes: no more can be, since %w", c.lost)
	}
	k, body, err := c.request(ctx, appendPIDs(packet(kindChoose), sorted(pids)))
	switch {
	case err != nil:
		c.lost = err
		return 0, fmt.Errorf("choose processes: %w", err)
	case k == kindRefused:
		return 0, parseRefused(body)
	case k == kindChosen:
		return parseChosen(body)
	}
	return 0, fmt.Errorf("choose processes: %w: answer of kind %d", errMalformed, k)
}

// request sends a packet and returns the answer.
func (c *Client) request(ctx context.Context, b []byte) (kind, []byte, error) {
	cancel := context.AfterFunc(ctx, func() { c.conn.SetReadDeadline(time.Unix(1, 0)) })
	k, body, err := c.exchange(b)
	switch {
	case !cancel(): // the deadline is set, or about to be
		return 0, nil, context.Cause(ctx)
	case err == nil, errors.Is(err, net.ErrClosed), errors.Is(err, errMalformed):
		return k, body, err
	}
	// The helper ends, or has ended.
	select {
	case <-ctx.Done():
		return 0, nil, context.Cause(ctx)
	case <-c.done:
	}
	if c.exited == nil {
		return 0, nil, ErrEnded
	}
	return 0, nil, fmt.Errorf("%w: %w", ErrGone, c.exited)
}

func (c *Client) exchange(b []byte) (kind, []byte, error) {
	if _, err := c.conn.Write(b); err != nil {
		return 0, nil, err
	}
	return receive(c.conn, make([]byte, headerSize+1+maxText+1))
}

// Info says what is recorded, and how.
func (c *Client) Info() Info { return c.info }

// PID returns the process id of the helper.
func (c *Client) PID() int { return c.cmd.Process.Pid }

// Stop ends the recording: Next returns what there is, and io.EOF. It does not wait, and may be called again.
func (c *Client) Stop() {
	// If this fails then so does Next. It does not wait for the answer of a request.
	_, _ = c.conn.Write(packet(kindStop))
}

// Next waits for events and returns how many it has put into buf, at least one. It returns io.EOF when the recording has
// ended: by Stop, or because no chosen process is left; and an error that wraps ErrGone if the helper ended before that.
func (c *Client) Next(buf []trace.Event) (int, error) {
	for len(c.events) == 0 {
		if c.ending.End != 0 {
			return 0, io.EOF
		}
		k, body, err := receive(c.stream, c.buf)
		switch {
		case err != nil:
			return 0, err
		case k == kindEvents && len(body) > 0 && len(body)%eventSize == 0:
			c.events = body
		case k == kindEnded:
			if c.ending, err = parseEnded(body); err != nil {
				return 0, err
			}
		case k == kindRefused:
			return 0, parseRefused(body)
		default:
			return 0, fmt.Errorf("%w: kind %d of %d bytes", errMalformed, k, len(body))
		}
	}
	n := 0
	for n < len(buf) && len(c.events) > 0 {
		var err error
		if buf[n], err = parseEvent(c.events[:eventSize], 0); err != nil {
			return n, err
		}
		c.events = c.events[eventSize:]
		n++
	}
	return n, nil
}

// Ending says how the recording ended, once Next has returned io.EOF.
func (c *Client) Ending() trace.Ending { return c.ending }

// Close ends the helper and waits until it has ended. It is idempotent, and must not be called while Next runs.
func (c *Client) Close() error {
	err := c.hangUp()
	c.cmd.Process.Kill() // it has nothing to lose; what it attached goes with it
	<-c.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
