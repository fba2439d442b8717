//go:build linux

package uffdtest

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
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
	tb   testing.TB
	name string
	done chan struct{} // closed once value and err are set

	value T
	err   error
}

func newCall[T any](tb testing.TB, name string) *Call[T] {
	return &Call[T]{tb: tb, name: name, done: make(chan struct{})}
}

func (c *Call[T]) finish(value T, err error) {
	if err != nil {
		err = fmt.Errorf("%s: %w", c.name, err)
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
		return none, fmt.Errorf("%s: no answer: %w", c.name, context.Cause(ctx))
	}
}

// Must returns the answer, and fails the test if there is none or if it is an error. Only the goroutine of the
// test may call it.
func (c *Call[T]) Must() T {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	value, err := c.Wait(ctx)
	if err != nil {
		c.tb.Fatal(err)
	}
	return value
}

// Err returns the error of the answer, and fails the test if there is no answer. Only the goroutine of the test
// may call it.
func (c *Call[T]) Err() error {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := c.Wait(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		c.tb.Fatal(err)
	}
	return err
}
