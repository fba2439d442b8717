package runner

import (
	"context"
	"fmt"
)

// Call calls a method. Returns a [*CallError] if it fails; the runner goes on then.
func (c *Client) Call(ctx context.Context, call *Call) (*Result, error) {
	e, err := c.call(ctx, func(id uint64) any {
		return callCommand{"call", id, call.Method, orEmpty(call.Args, "[]"), orEmpty(call.Kwargs, "{}")}
	})
	if err != nil {
		return nil, err
	}
	if e.Event == "response" {
		return nil, c.wrongKind(e)
	}
	return e.result()
}

// HTTP puts a request to an endpoint, the method of that name. Returns a [*CallError] if it fails; the runner goes on then.
func (c *Client) HTTP(ctx context.Context, method string, r *Request) (*Response, error) {
	// The runner knows lists, and no null in their place.
	sent := *r
	if sent.Headers == nil {
		sent.Headers = [][2]string{}
	}
	if sent.Body == nil {
		sent.Body = []byte{}
	}
	e, err := c.call(ctx, func(id uint64) any { return httpCommand{"http", id, method, &sent} })
	if err != nil {
		return nil, err
	}
	switch e.Event {
	case "response":
		return &Response{Status: e.Status, Headers: e.Headers, Body: e.Body}, nil
	case "error":
		_, err := e.result()
		return nil, err
	}
	return nil, c.wrongKind(e)
}

func (c *Client) wrongKind(e *event) error {
	err := fmt.Errorf("%w: it answered call %d with %q", ErrProtocol, e.ID, e.Event)
	c.fail(err)
	return err
}

// call makes a command with a number of its own and waits for the answer to it.
func (c *Client) call(ctx context.Context, command func(id uint64) any) (*event, error) {
	answer := make(chan *event, 1)
	id, err := c.register(answer)
	if err != nil {
		return nil, err
	}
	if err := c.write(ctx, command(id)); err != nil {
		c.mu.Lock()
		delete(c.calls, id) // it was not made, or there will be no answer
		c.mu.Unlock()
		return nil, err
	}
	select {
	case e := <-answer:
		return e, nil
	case <-ctx.Done():
		c.abandon(id)
		return nil, context.Cause(ctx)
	case <-c.ended:
	}
	select {
	case e := <-answer: // came right before the end
		return e, nil
	default:
		return nil, c.Err()
	}
}

func (c *Client) register(answer chan *event) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	id := c.next
	c.next++
	c.calls[id] = answer
	return id, nil
}

// abandon has the answer to a call dropped when it comes.
func (c *Client) abandon(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.calls[id]; ok {
		c.calls[id] = nil
	}
}
