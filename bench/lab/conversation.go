package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"thaw/checkpoint"
)

// conversation is our end of a container's standard streams. Not safe for concurrent use.
type conversation struct {
	theirs checkpoint.Stdio // the container's ends, until they are handed over

	in     *os.File
	out    *os.File
	lines  *bufio.Reader
	errors *tail
}

// newConversation makes the pipes. The caller calls handedOver once the container has its ends, and close in any case.
func newConversation() (*conversation, error) {
	c := &conversation{}
	var err error
	if c.theirs.In, c.in, err = os.Pipe(); err != nil {
		return nil, err
	}
	if c.out, c.theirs.Out, err = os.Pipe(); err != nil {
		c.close()
		return nil, err
	}
	stderr, theirs, err := os.Pipe()
	if err != nil {
		c.close()
		return nil, err
	}
	c.theirs.Err = theirs
	c.lines = bufio.NewReaderSize(c.out, 64<<10)
	c.errors = readTail(stderr)
	return c, nil
}

// handedOver closes our copies of the container's ends, so that the end of the container ends its streams.
func (c *conversation) handedOver() {
	for _, f := range []**os.File{&c.theirs.In, &c.theirs.Out, &c.theirs.Err} {
		if *f != nil {
			(*f).Close()
			*f = nil
		}
	}
}

// close ends the conversation. The container must be gone, for close waits for the end of its error stream.
func (c *conversation) close() {
	c.handedOver()
	for _, f := range []*os.File{c.in, c.out} {
		if f != nil {
			f.Close()
		}
	}
	if c.errors != nil {
		c.errors.wait()
	}
}

// ahead writes a request. It does not wait for the container to read it: a pipe holds 64 KiB.
func (c *conversation) ahead(r Request) error {
	if _, err := c.in.WriteString(r.body() + "\n"); err != nil {
		return fmt.Errorf("write request: %w", err)
	}
	return nil
}

// line reads one line and returns it with the time at which it was there.
func (c *conversation) line(ctx context.Context) ([]byte, time.Time, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.out.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	line, err := c.lines.ReadBytes('\n')
	now := time.Now()
	if err == nil {
		return line, now, nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	} else if errors.Is(err, io.EOF) {
		err = fmt.Errorf("the container ended: %s", c.errors.wait())
	}
	return nil, now, fmt.Errorf("read answer: %w", err)
}

// ready waits for the line that says that the model is loaded.
func (c *conversation) ready(ctx context.Context) error {
	line, _, err := c.line(ctx)
	if err != nil {
		return err
	}
	var message struct{ Ready bool }
	if err := json.Unmarshal(line, &message); err != nil || !message.Ready {
		return fmt.Errorf("container wrote %.200q, want that it is ready", line)
	}
	return nil
}

// first reads the answer to the oldest request that has none.
func (c *conversation) first(ctx context.Context) (*answer, time.Time, error) {
	line, at, err := c.line(ctx)
	if err != nil {
		return nil, at, err
	}
	a, err := parseAnswer(line)
	return a, at, err
}

// call writes a request and waits for the answer.
func (c *conversation) call(ctx context.Context, r Request) (*answer, time.Duration, error) {
	start := time.Now()
	if err := c.ahead(r); err != nil {
		return nil, 0, err
	}
	a, at, err := c.first(ctx)
	return a, at.Sub(start), err
}

// tail keeps the end of what a container says on its error stream.
type tail struct {
	done chan struct{}
	text []byte // owned by the reader goroutine until done is closed
}

// maxTail is enough for the end of a Python traceback.
const maxTail = 4 << 10

// readTail reads r to its end and closes it. The caller waits.
func readTail(r *os.File) *tail {
	t := &tail{done: make(chan struct{})}
	go func() {
		defer close(t.done)
		defer r.Close()
		buf := make([]byte, maxTail)
		for {
			n, err := r.Read(buf)
			t.text = append(t.text, buf[:n]...)
			t.text = t.text[max(0, len(t.text)-maxTail):]
			if err != nil {
				return
			}
		}
	}()
	return t
}

// wait waits for the end of the stream and returns its last words.
func (t *tail) wait() string {
	<-t.done
	return strings.TrimSpace(string(t.text))
}
