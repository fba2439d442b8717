package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Client is our end of the conversation with one runner. It is safe for concurrent use.
//
// A command whose context ends leaves the runner with something to say that nobody waits for. That is fine for a call, whose answer is
// dropped. For any other command, and for one of which only a part could be written, the conversation is over.
type Client struct {
	in  *os.File
	out *os.File
	log *Log

	writing chan struct{} // holds a token while nobody writes to in
	turn    chan struct{} // holds a token while no command but calls waits for its answer
	control chan *event   // answers to these

	ended chan struct{} // closed when the reader has ended
	once  sync.Once     // of Close

	mu sync.Mutex
	// protected by mu
	calls map[uint64]chan *event // those in flight; nil for one that nobody waits for any more
	next  uint64                 // number of the next call
	err   error                  // why the conversation is over
}

// New begins a conversation: in and out are our ends of pipes, which the client owns from now on. log is that of the same runner, for errors;
// it stays the caller's, and may be nil. The caller closes the client.
func New(in, out *os.File, log *Log) *Client {
	c := &Client{
		in: in, out: out, log: log,
		writing: make(chan struct{}, 1), turn: make(chan struct{}, 1), control: make(chan *event, 1),
		ended: make(chan struct{}), calls: make(map[uint64]chan *event), next: 1,
	}
	c.writing <- struct{}{}
	c.turn <- struct{}{}
	go c.read()
	return c
}

// Close ends the conversation: the runner sees the end of its input. Commands that wait return an error that wraps [ErrClosed]. Closing
// again does nothing.
func (c *Client) Close() error {
	var err error
	c.once.Do(func() {
		c.fail(ErrClosed)
		_ = c.in.SetWriteDeadline(time.Unix(1, 0))
		<-c.ended
		err = errors.Join(c.in.Close(), c.out.Close())
	})
	return err
}

// Ended is closed when the runner cannot be heard any more: it has ended, or failed, or the client was closed. Err says why then.
func (c *Client) Ended() <-chan struct{} { return c.ended }

// Err returns why the conversation is over, nil if it is not.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// fail ends the conversation, and notes why. The first reason counts.
func (c *Client) fail(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	c.mu.Unlock()
	// The reader wakes up, whoever holds the other end.
	_ = c.out.SetReadDeadline(time.Unix(1, 0))
}

// read takes events until there are no more.
func (c *Client) read() {
	defer close(c.ended)
	lines := newLines(c.out)
	for {
		line, err := lines.next()
		if err != nil {
			c.fail(c.unheard(err))
			return
		}
		e, err := parseEvent(line)
		if err == nil {
			err = c.take(e)
		}
		if err != nil {
			c.fail(err)
			return
		}
	}
}

// logGrace is how long the end of the log may come behind the end of the output. Both come with the end of the process, unless a child of it
// lives on.
const logGrace = time.Second

// unheard says why no more events come.
func (c *Client) unheard(err error) error {
	switch {
	case errors.Is(err, ErrTooLong):
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	case errors.Is(err, io.EOF):
		err = nil
	case c.Err() != nil:
		return c.Err()
	}
	e := &EndedError{Err: err}
	if c.log != nil {
		select {
		case <-c.log.done:
		case <-time.After(logGrace):
		}
		e.Log = c.log.Last()
	}
	return e
}

// take hands an event to who waits for it.
func (c *Client) take(e *event) error {
	if e.Event == "failed" {
		return e.failed()
	}
	if !e.isAnswer() {
		select {
		case c.control <- e:
			return nil
		default:
			return fmt.Errorf("%w: event %q answers nothing", ErrProtocol, e.Event)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	answer, ok := c.calls[e.ID]
	if !ok {
		return fmt.Errorf("%w: there is no call %d that has no answer", ErrProtocol, e.ID)
	}
	delete(c.calls, e.ID)
	if answer != nil {
		answer <- e // has room for one
	}
	return nil
}

// write sends a command. If only a part of it could be sent, the conversation is over.
func (c *Client) write(ctx context.Context, command any) error {
	line, err := json.Marshal(command)
	if err != nil {
		return fmt.Errorf("encode command: %w", err)
	}
	if line = append(line, '\n'); len(line) > MaxLine {
		return fmt.Errorf("command of %d bytes: %w", len(line), ErrTooLong)
	}
	select {
	case <-c.writing:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.ended:
		return c.Err()
	}
	defer func() { c.writing <- struct{}{} }()
	if err := c.Err(); err != nil {
		return err
	}
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cut)
		_ = c.in.SetWriteDeadline(time.Unix(1, 0))
	})
	n, err := c.in.Write(line)
	if !stop() {
		<-cut
		if c.Err() == nil {
			_ = c.in.SetWriteDeadline(time.Time{}) // for those who come later
		}
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && n == 0:
		return context.Cause(ctx)
	case ctx.Err() != nil:
		err = fmt.Errorf("a command was cut off: %w", context.Cause(ctx))
		c.fail(err)
		return err
	}
	// The runner reads no more. Its last words come with the end of its output, which says more.
	select {
	case <-c.ended:
		return c.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(logGrace):
		err = fmt.Errorf("write to the runner: %w", err)
		c.fail(err)
		return err
	}
}
