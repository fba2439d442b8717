//go:build linux

package uffdtest

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// ErrTargetGone is returned by calls that the target did not answer before it ended.
var ErrTargetGone = errors.New("target is gone")

// SignalError is returned by calls during which the target's access to memory raised a signal.
type SignalError struct {
	Signal syscall.Signal
	Code   int32  // si_code
	Addr   uint64 // si_addr
}

func (e *SignalError) Error() string {
	return fmt.Sprintf("%v (code %d) at %#x", e.Signal, e.Code, e.Addr)
}

// patience bounds how long Must waits. It only has to be longer than any machine needs, so that a server which
// forgets a fault fails the test instead of hanging it.
const patience = 60 * time.Second

// Call is a command under way. It is safe for concurrent use.
type Call[T any] struct {
	target *Target
	op     op
	done   chan struct{} // closed once value and err are set

	value T
	err   error
}

func newCall[T any](t *Target, o op) *Call[T] {
	return &Call[T]{target: t, op: o, done: make(chan struct{})}
}

func (c *Call[T]) finish(value T, err error) {
	if err != nil {
		err = fmt.Errorf("target %d: %v: %w", c.target.pid, c.op, err)
	}
	c.value, c.err = value, err
	close(c.done)
}

// Done is closed when the command has been answered.
func (c *Call[T]) Done() <-chan struct{} { return c.done }

// Finished reports whether the command has been answered.
func (c *Call[T]) Finished() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// Wait returns the answer. The error wraps the errno of the target's system call, is a *SignalError, or matches
// ErrTargetGone.
func (c *Call[T]) Wait(ctx context.Context) (T, error) {
	select {
	case <-c.done:
		return c.value, c.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("target %d: %v: no answer: %w%s", c.target.pid, c.op, context.Cause(ctx), c.target.blocked())
	}
}

// Must returns the answer, and fails the test if there is none or if it is an error. Only the goroutine of the
// test may call it.
func (c *Call[T]) Must() T {
	c.target.tb.Helper()
	value, err := c.waitPatiently()
	if err != nil {
		c.target.tb.Fatal(err)
	}
	return value
}

// Err returns the error of the answer, nil if the command went well, and fails the test if there is no answer.
// Only the goroutine of the test may call it.
func (c *Call[T]) Err() error {
	c.target.tb.Helper()
	_, err := c.waitPatiently()
	if errors.Is(err, context.DeadlineExceeded) {
		c.target.tb.Fatal(err)
	}
	return err
}

func (c *Call[T]) waitPatiently() (T, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.Wait(ctx)
}
