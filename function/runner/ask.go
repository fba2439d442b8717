package runner

import (
	"context"
	"fmt"
)

// Import has the runner import modules, and returns how long that took, in seconds.
func (c *Client) Import(ctx context.Context, modules []string) (float64, error) {
	e, err := c.ask(ctx, importCommand{"import", modules}, "imported")
	if err != nil {
		return 0, err
	}
	return seconds[float64](e), nil
}

// Load has the runner make its object.
func (c *Client) Load(ctx context.Context, l *Load) (*Loaded, error) {
	e, err := c.ask(ctx, l.command(), "loaded")
	if err != nil {
		return nil, err
	}
	loaded := seconds[Loaded](e)
	return &loaded, nil
}

// Prepare has the runner get ready to be frozen.
func (c *Client) Prepare(ctx context.Context) (*Prepared, error) {
	e, err := c.ask(ctx, plainCommand{"prepare"}, "prepared")
	if err != nil {
		return nil, err
	}
	return &Prepared{Problems: e.Problems, Generators: e.Generators, Seconds: seconds[map[string]float64](e)}, nil
}

// Boot has the runner get ready for calls.
func (c *Client) Boot(ctx context.Context, b *Boot) (*Ready, error) {
	e, err := c.ask(ctx, b.command(), "ready")
	if err != nil {
		return nil, err
	}
	ready := seconds[Ready](e)
	return &ready, nil
}

// Stop has the runner finish the calls that it has, and end. It returns when the runner has said that it has done all.
func (c *Client) Stop(ctx context.Context) error {
	_, err := c.ask(ctx, plainCommand{"stop"}, "stopped")
	return err
}

// ask makes a command of those that are made one at a time, and waits for its answer.
func (c *Client) ask(ctx context.Context, command any, want string) (*event, error) {
	select {
	case <-c.turn:
	default:
		if err := c.Err(); err != nil {
			return nil, err
		}
		return nil, ErrBusy
	}
	if err := c.write(ctx, command); err != nil {
		c.turn <- struct{}{}
		return nil, err
	}
	e, err := c.answer(ctx)
	if err != nil {
		// Whatever it says now, it is not what the next command asks. So the turn is not given back.
		c.fail(err)
		return nil, err
	}
	c.turn <- struct{}{}
	if e.Event != want {
		err := fmt.Errorf("%w: it answered with %q, want %q", ErrProtocol, e.Event, want)
		c.fail(err)
		return nil, err
	}
	return e, nil
}

// answer waits for the answer to a command that was written.
func (c *Client) answer(ctx context.Context) (*event, error) {
	select {
	case e := <-c.control:
		return e, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.ended:
	}
	// The answer may have come right before the end.
	select {
	case e := <-c.control:
		return e, nil
	default:
		return nil, c.Err()
	}
}
