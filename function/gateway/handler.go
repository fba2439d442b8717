package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"thaw/function"
	"thaw/function/runner"
)

// MaxBody bounds the body of a request, in bytes: a line of the runner's protocol is 64 MiB at most, and a body in base64 has to fit.
const MaxBody = 40 << 20

// Functions is what the gateway stands in front of: a *function.Server.
type Functions interface {
	Call(ctx context.Context, t *function.Target, c *runner.Call) (*runner.Result, *function.Outcome, error)
	HTTP(ctx context.Context, t *function.Target, endpoint string, r *runner.Request) (*runner.Response, *function.Outcome, error)
	Freeze(ctx context.Context, t *function.Target) (*function.Frozen, error)
	Instances() []function.InstanceInfo
}

// Answer is the body of a successful call.
type Answer struct {
	Value    json.RawMessage   `json:"value"`
	Instance string            `json:"instance"`
	Boot     function.BootKind `json:"boot"`           // what the call has waited for
	Waited   float64           `json:"waited_seconds"` // until an instance took it
	Ran      float64           `json:"ran_seconds"`    // in the instance
	Took     float64           `json:"took_seconds"`   // from the request's arrival to its answer
}

// FreezeRequest asks for a snapshot.
type FreezeRequest struct {
	App        string          `json:"app"`
	Object     string          `json:"object"`
	Parameters json.RawMessage `json:"parameters,omitempty"`
}

// Frozen says what a freeze did.
type Frozen struct {
	Snapshot   string   `json:"snapshot"`
	Template   string   `json:"template,omitempty"` // on which it was taken
	Bytes      uint64   `json:"bytes"`              // of memory that is not zero
	NewBytes   uint64   `json:"new_bytes"`          // of those, what the store did not have
	Took       float64  `json:"took_seconds"`       // from the start of the instance until it can be restored
	ForBase    float64  `json:"template_seconds"`   // of those, what the template needed
	Stopped    float64  `json:"stopped_seconds"`    // how long the process stood still
	Writing    float64  `json:"writing_seconds"`    // how much of that CRIU needed to write pages
	Generators []string `json:"generators,omitempty"`
}

// InstanceList is the instances that serve.
type InstanceList struct {
	Instances []function.InstanceInfo `json:"instances"`
}

// Health says that the server is there.
type Health struct {
	Status    string    `json:"status"` // "ok"
	Started   time.Time `json:"started"`
	Instances int       `json:"instances"`
}

// Options are those of NewHandler.
type Options struct {
	Logger  *slog.Logger // default: discard
	Metrics http.Handler // serves GET /metrics; default: none, which answers 404
}

type handler struct {
	functions Functions
	log       *slog.Logger
	started   time.Time
}

// NewHandler returns a handler in front of f.
func NewHandler(f Functions, o Options) http.Handler {
	h := &handler{functions: f, log: o.Logger, started: time.Now()}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	for pattern, serve := range map[string]func(w http.ResponseWriter, r *http.Request) error{
		"POST /v1/apps/{app}/{object}/{method}":    h.call,
		"POST /v1/apps/{app}/{object}":             h.call,
		"POST /v1/freeze":                          h.freeze,
		"GET /v1/instances":                        h.instances,
		"GET /v1/health":                           h.health,
		"/web/{app}/{object}/{endpoint}":           h.web,
		"/web/{app}/{object}/{endpoint}/{rest...}": h.web,
		"/": func(_ http.ResponseWriter, r *http.Request) error {
			return &Error{Code: CodeNotDeployed, Message: fmt.Sprintf("there is no %s %s; calls are POST /v1/apps/APP/OBJECT/METHOD", r.Method, r.URL.Path)}
		},
	} {
		mux.Handle(pattern, h.wrap(serve))
	}
	if o.Metrics != nil {
		mux.Handle("GET /metrics", o.Metrics)
	}
	return mux
}

func (h *handler) wrap(serve func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := serve(w, r)
		if err == nil {
			return
		}
		e := errorOf(err)
		status := statusOf(err, e)
		if e.Code == CodeInternal && status != statusClientGone {
			h.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
		}
		if e.Code == CodeClosing {
			w.Header().Set("Retry-After", "1")
		}
		h.reply(w, status, ErrorBody{*e})
	})
}

func (h *handler) reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	if err := e.Encode(body); err != nil {
		h.log.Debug("answer not sent", "err", err)
	}
}

// targetOf returns what the request is for.
func targetOf(r *http.Request) *function.Target {
	t := &function.Target{App: r.PathValue("app"), Object: r.PathValue("object")}
	if p := r.URL.Query().Get("parameters"); p != "" {
		t.Parameters = json.RawMessage(p)
	}
	return t
}

func (h *handler) call(w http.ResponseWriter, r *http.Request) error {
	t := targetOf(r)
	c := &runner.Call{Method: r.PathValue("method")}
	if c.Method == "" {
		c.Method = t.Object
	}
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	if err := arguments(c, body); err != nil {
		return err
	}
	result, o, err := h.functions.Call(r.Context(), t, c)
	if err != nil {
		return err
	}
	h.reply(w, http.StatusOK, Answer{
		Value: result.Value, Instance: o.Instance, Boot: o.Boot, Waited: o.Waited.Seconds(), Ran: result.Seconds, Took: o.Took.Seconds(),
	})
	return nil
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
		return nil, &Error{Code: CodeRequest, Message: fmt.Sprintf("the body is longer than %d bytes", tooLong.Limit)}
	}
	if err != nil {
		// It is the sender's: it broke off, or is no HTTP.
		return nil, &Error{Code: CodeRequest, Message: fmt.Sprintf("the body cannot be read: %v", err)}
	}
	return body, nil
}

// arguments reads the body of a call.
func arguments(c *runner.Call, body []byte) error {
	body = bytes.TrimSpace(body)
	switch {
	case len(body) == 0:
		return nil
	case !json.Valid(body):
		var v any
		return &Error{Code: CodeRequest, Message: fmt.Sprintf("the body is not JSON: %v", json.Unmarshal(body, &v))}
	case body[0] == '{':
		c.Kwargs = body
	case body[0] == '[':
		c.Args = body
	default:
		return &Error{Code: CodeRequest, Message: "the body is neither a JSON object, the arguments by name, nor a JSON array, the arguments in order"}
	}
	return nil
}

func (h *handler) web(w http.ResponseWriter, r *http.Request) error {
	t := targetOf(r)
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	headers := [][2]string{}
	for name, values := range r.Header {
		for _, v := range values {
			headers = append(headers, [2]string{name, v})
		}
	}
	req := &runner.Request{
		Method: r.Method, Path: "/" + r.PathValue("rest"), Query: withoutParameters(r.URL.RawQuery), Headers: append(endToEnd(headers), [2]string{"Host", r.Host}), Body: body,
	}
	res, o, err := h.functions.HTTP(r.Context(), t, r.PathValue("endpoint"), req)
	if err != nil {
		return err
	}
	if res.Status < 200 || res.Status > 599 {
		return &Error{Code: CodeResult, Message: fmt.Sprintf("the endpoint answered with status %d; want 200 to 599", res.Status)}
	}
	for _, kv := range endToEnd(res.Headers) {
		if !strings.ContainsAny(kv[0]+kv[1], "\r\n") {
			w.Header().Add(kv[0], kv[1])
		}
	}
	w.Header().Set("Thaw-Instance", o.Instance)
	w.Header().Set("Thaw-Boot", string(o.Boot))
	w.WriteHeader(res.Status)
	if _, err := w.Write(res.Body); err != nil {
		h.log.Debug("answer not sent", "err", err)
	}
	return nil
}

func (h *handler) freeze(w http.ResponseWriter, r *http.Request) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	var f FreezeRequest
	if err := json.Unmarshal(body, &f); err != nil {
		return &Error{Code: CodeRequest, Message: fmt.Sprintf("the body is no request for a snapshot: %v", err)}
	}
	frozen, err := h.functions.Freeze(r.Context(), &function.Target{App: f.App, Object: f.Object, Parameters: f.Parameters})
	if err != nil {
		e := errorOf(err)
		if e.Code == CodeInternal {
			e.Code = CodeSnapshot // the functions have logged it
		}
		return e
	}
	h.reply(w, http.StatusOK, Frozen{
		Snapshot: frozen.Name, Template: frozen.Template, Bytes: frozen.Bytes, NewBytes: frozen.NewBytes, Took: frozen.Took.Seconds(),
		ForBase: frozen.Templates.Seconds(), Stopped: frozen.Report.Stopped.Seconds(), Writing: frozen.Report.Writing.Seconds(), Generators: frozen.Generators,
	})
	return nil
}

func (h *handler) instances(w http.ResponseWriter, _ *http.Request) error {
	h.reply(w, http.StatusOK, InstanceList{append([]function.InstanceInfo{}, h.functions.Instances()...)})
	return nil
}

func (h *handler) health(w http.ResponseWriter, _ *http.Request) error {
	h.reply(w, http.StatusOK, Health{Status: "ok", Started: h.started.UTC(), Instances: len(h.functions.Instances())})
	return nil
}
