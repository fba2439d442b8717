package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrUnavailable is returned by all methods of a [Client] if no function server listens where it was told.
var ErrUnavailable = errors.New("no function server listens")

// Client talks to a gateway. It is safe for concurrent use.
type Client struct {
	server string
	base   string
	http   http.Client
}

// NewClient returns a client of the gateway at server: the path of a unix socket, or an http or https URL.
func NewClient(server string) *Client {
	c := &Client{server: server, base: strings.TrimSuffix(server, "/")}
	if !strings.HasPrefix(server, "http://") && !strings.HasPrefix(server, "https://") {
		c.base = "http://thaw"
		c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", server)
		}}
	}
	return c
}

// Close closes idle connections. The client stays usable.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Call calls method of an object of an app; a function if method is empty. arguments is the body of the call, parameters the object's; both may
// be nil. Failures of the call are an *Error.
func (c *Client) Call(ctx context.Context, app, object, method string, arguments, parameters json.RawMessage) (*Answer, error) {
	path := "/v1/apps/" + url.PathEscape(app) + "/" + url.PathEscape(object)
	if method != "" {
		path += "/" + url.PathEscape(method)
	}
	if parameters != nil {
		path += "?parameters=" + url.QueryEscape(string(parameters))
	}
	return ask[Answer](ctx, c, http.MethodPost, path, arguments)
}

// Freeze has a snapshot taken, and returns when it can be restored.
func (c *Client) Freeze(ctx context.Context, r *FreezeRequest) (*Frozen, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return ask[Frozen](ctx, c, http.MethodPost, "/v1/freeze", body)
}

// Instances returns the instances that serve.
func (c *Client) Instances(ctx context.Context) (*InstanceList, error) {
	return ask[InstanceList](ctx, c, http.MethodGet, "/v1/instances", nil)
}

// Health asks whether the server is there.
func (c *Client) Health(ctx context.Context) (*Health, error) {
	return ask[Health](ctx, c, http.MethodGet, "/v1/health", nil)
}

func ask[T any](ctx context.Context, c *Client, method, path string, body []byte) (*T, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.unanswered(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("answer of the function server: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		var e ErrorBody
		if json.Unmarshal(text, &e) != nil || e.Error.Code == "" {
			return nil, fmt.Errorf("function server: %s: %.200q", res.Status, text)
		}
		return nil, &e.Error
	}
	out := new(T)
	if err := json.Unmarshal(text, out); err != nil {
		return nil, fmt.Errorf("answer of the function server: %w", err)
	}
	return out, nil
}

// unanswered says why a request has no answer.
func (c *Client) unanswered(err error) error {
	// The address in front of it is made up for a socket, and has the parameters in it.
	if asked := (*url.Error)(nil); errors.As(err, &asked) {
		err = asked.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		// Without the cause, which names a file that is not there.
		return fmt.Errorf("%w on %s", ErrUnavailable, c.server)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission to talk to the function server on %s: %w", c.server, err)
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
		return fmt.Errorf("the function server at %s has ended before it answered: %w", c.server, err)
	}
	return fmt.Errorf("ask the function server at %s: %w", c.server, err)
}
