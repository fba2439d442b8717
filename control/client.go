package control

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

// maxResponseBytes bounds what the client reads of an answer: a list of some ten thousand sessions.
const maxResponseBytes = 32 << 20

// Client talks to the thawd that listens on one socket. It is safe for concurrent use.
//
// What its methods return as error wraps an [Error] whenever thawd, or its absence, was the reason.
type Client struct {
	socket string
	http   http.Client
}

// NewClient returns a client of the thawd that listens on the unix socket at path. It does not connect yet.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{
		socket: path,
		http:   http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConns: 2}},
	}
}

// Close closes idle connections. The client stays usable.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// CreateSession makes a session.
func (c *Client) CreateSession(ctx context.Context, r *SessionRequest) (*Session, error) {
	return call[Session](ctx, c, http.MethodPost, "/v1/sessions", r)
}

// Sessions lists live sessions and recent ended ones, oldest first.
func (c *Client) Sessions(ctx context.Context) ([]Session, error) {
	list, err := call[SessionList](ctx, c, http.MethodGet, "/v1/sessions", nil)
	if err != nil {
		return nil, err
	}
	return list.Sessions, nil
}

// Session returns one session. The error is [CodeNotFound] if there is none with that id.
func (c *Client) Session(ctx context.Context, id string) (*Session, error) {
	return call[Session](ctx, c, http.MethodGet, "/v1/sessions/"+url.PathEscape(id), nil)
}

// DeleteSession cancels a session to which no runtime has connected, or makes thawd forget one that has ended. The
// error is [CodeWouldLoseMemory] while processes need the session.
func (c *Client) DeleteSession(ctx context.Context, id string) error {
	_, err := call[struct{}](ctx, c, http.MethodDelete, "/v1/sessions/"+url.PathEscape(id), nil)
	return err
}

// MarkSession notes that something has happened to the processes of a recorded session. Call it when it happens: the time counts. The
// error is [CodeNotRecorded] if nothing is recorded, or not any more.
func (c *Client) MarkSession(ctx context.Context, id string, m Mark) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/v1/sessions/"+url.PathEscape(id)+"/marks", MarkRequest{m})
	return err
}

// Pull has thawd bring a snapshot, "snapshot" or "namespace/snapshot", that is elsewhere, or more of one that is here, and waits for it: for
// [PullWhole] that may take long. The error is [CodeSnapshotNotFound] if no place knows it, [CodeNoTiers] if thawd knows no places.
func (c *Client) Pull(ctx context.Context, name string, mode PullMode) (*PullReport, error) {
	namespace, snapshot, ok := strings.Cut(name, "/")
	if !ok {
		namespace, snapshot = "default", name
	}
	return call[PullReport](ctx, c, http.MethodPost, "/v1/snapshots/"+url.PathEscape(namespace)+"/"+url.PathEscape(snapshot)+"/pull", PullRequest{mode})
}

// Tiers asks what is known of the places beyond thawd's store. The error is [CodeNoTiers] if there are none.
func (c *Client) Tiers(ctx context.Context) (*Tiers, error) {
	return call[Tiers](ctx, c, http.MethodGet, "/v1/tiers", nil)
}

// Drain tells thawd to take no new sessions and to end with the last one. It does not wait for that.
func (c *Client) Drain(ctx context.Context) (*Health, error) {
	return call[Health](ctx, c, http.MethodPost, "/v1/drain", nil)
}

// Health asks how thawd is.
func (c *Client) Health(ctx context.Context) (*Health, error) {
	return call[Health](ctx, c, http.MethodGet, "/v1/health", nil)
}

// Metrics returns thawd's metrics in Prometheus' text format.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	return c.do(ctx, http.MethodGet, "/metrics", nil)
}

// call does a request and decodes the answer, if there is one.
func call[T any](ctx context.Context, c *Client, method, path string, body any) (*T, error) {
	answer, err := c.do(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	out := new(T)
	if len(answer) == 0 {
		return out, nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return nil, fmt.Errorf("read answer of %s %s: %w", method, path, err)
	}
	return out, nil
}

func (c *Client) do(ctx context.Context, method, path string, body any) ([]byte, error) {
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		send = bytes.NewReader(b)
	}
	// The host is of no meaning on a unix socket, but HTTP wants one.
	req, err := http.NewRequestWithContext(ctx, method, "http://thawd"+path, send)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxResponseBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read answer of %s %s: %w", method, path, err)
	}
	if len(answer) > maxResponseBytes {
		return nil, fmt.Errorf("read answer of %s %s: larger than %d bytes", method, path, maxResponseBytes)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return nil, readError(resp.StatusCode, answer)
	}
	return answer, nil
}

// unreachable says in thawd's terms why no connection came about.
func (c *Client) unreachable(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return &Error{
			Code:    CodeUnavailable,
			Message: fmt.Sprintf("no thawd listens on %s", c.socket),
			Hint:    "start one (thawd serve), or name its socket with --socket or THAW_SOCKET",
		}
	case errors.Is(err, fs.ErrPermission):
		return &Error{
			Code:    CodePermission,
			Message: fmt.Sprintf("no permission to talk to thawd on %s", c.socket),
			Hint:    "the socket belongs to the user who runs thawd: run as that user, or as root",
		}
	}
	return fmt.Errorf("talk to thawd on %s: %w", c.socket, err)
}

// readError returns the Error in body, or one that shows what came in its place.
func readError(status int, body []byte) error {
	var e ErrorBody
	if json.Unmarshal(body, &e) == nil && e.Error.Code != "" {
		return &e.Error
	}
	const shown = 200
	return &Error{
		Code:    CodeInternal,
		Message: fmt.Sprintf("answer with status %d that is not of this API: %.*q", status, shown, body),
		Hint:    "is something other than thawd listening on the socket?",
	}
}
