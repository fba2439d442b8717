package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Backend does what the API's routes ask for. Its methods are called concurrently. Errors that are or wrap an [Error]
// reach the client as they are; others are told as [CodeInternal].
type Backend interface {
	// Create makes a session. The request has passed Validate.
	Create(ctx context.Context, r *SessionRequest) (*Session, error)
	// Sessions lists live sessions and recent ended ones, oldest first.
	Sessions() []Session
	// Session returns one session, or an Error with CodeNotFound.
	Session(id string) (*Session, error)
	// Delete cancels a session to which nobody has connected, or forgets one that has ended.
	Delete(ctx context.Context, id string) error
	// Mark notes that something has happened to the processes of a recorded session.
	Mark(id string, m Mark) error
	// Pull brings a snapshot that is elsewhere, or more of one that is here, and returns when that is done. The request has passed Validate.
	Pull(ctx context.Context, namespace, snapshot string, r *PullRequest) (*PullReport, error)
	// Tiers tells of the places beyond the store, or an Error with CodeNoTiers if there are none.
	Tiers() (*Tiers, error)
	// Drain makes the backend refuse new sessions and finish the others. It does not wait for that.
	Drain()
	// Health tells how the backend is.
	Health() Health
}

// HandlerOptions are the options of [NewHandler].
type HandlerOptions struct {
	Logger  *slog.Logger // default: discard
	Metrics http.Handler // serves GET /metrics; default: none, which answers 404
}

// A route is one line of the API. The table is the only place where routes are made, so that the OpenAPI document can
// be compared with it.
type route struct {
	method, pattern string
	handle          func(*handler, http.ResponseWriter, *http.Request) error
}

var routes = []route{
	{http.MethodPost, "/v1/sessions", (*handler).createSession},
	{http.MethodGet, "/v1/sessions", (*handler).listSessions},
	{http.MethodGet, "/v1/sessions/{id}", (*handler).getSession},
	{http.MethodDelete, "/v1/sessions/{id}", (*handler).deleteSession},
	{http.MethodPost, "/v1/sessions/{id}/marks", (*handler).markSession},
	{http.MethodPost, "/v1/snapshots/{namespace}/{name}/pull", (*handler).pull},
	{http.MethodGet, "/v1/tiers", (*handler).tiers},
	{http.MethodPost, "/v1/drain", (*handler).drain},
	{http.MethodGet, "/v1/health", (*handler).health},
	{http.MethodGet, "/metrics", (*handler).metrics},
}

type handler struct {
	backend Backend
	log     *slog.Logger
	prom    http.Handler
}

// NewHandler returns the API's handler over b.
func NewHandler(b Backend, opts *HandlerOptions) http.Handler {
	if opts == nil {
		opts = &HandlerOptions{}
	}
	h := &handler{backend: b, log: opts.Logger, prom: opts.Metrics}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	allowed := map[string][]string{}
	for _, r := range routes {
		allowed[r.pattern] = append(allowed[r.pattern], r.method)
		mux.Handle(r.method+" "+r.pattern, h.wrap(r.handle))
	}
	// Without a method the pattern catches what the routes above leave, so that a wrong method is told in JSON too.
	for pattern, methods := range allowed {
		mux.Handle(pattern, h.wrap(methodNotAllowed(methods)))
	}
	mux.Handle("/", h.wrap(func(_ *handler, _ http.ResponseWriter, r *http.Request) error {
		return &Error{Code: CodeNotFound, Message: fmt.Sprintf("there is no %s", r.URL.Path)}
	}))
	return mux
}

func methodNotAllowed(methods []string) func(*handler, http.ResponseWriter, *http.Request) error {
	allow := strings.Join(methods, ", ")
	return func(_ *handler, w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Allow", allow)
		return &Error{Code: CodeMethod, Message: fmt.Sprintf("%s does not take %s, only %s", r.URL.Path, r.Method, allow)}
	}
}

// wrap makes a handler of f that sends f's error, if any, as an ErrorBody.
func (h *handler) wrap(f func(*handler, http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := f(h, w, r)
		if err == nil {
			return
		}
		var e *Error
		if !errors.As(err, &e) {
			e = &Error{Code: CodeInternal, Message: err.Error()}
			h.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
		}
		h.reply(w, e.Code.Status(), ErrorBody{Error: *e})
	})
}

func (h *handler) reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		h.log.Debug("answer not sent", "err", err)
	}
}

func (h *handler) createSession(w http.ResponseWriter, r *http.Request) error {
	var req SessionRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := req.Validate(); err != nil {
		return err
	}
	takeTime(w)
	s, err := h.backend.Create(r.Context(), &req)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/v1/sessions/"+s.ID)
	h.reply(w, http.StatusCreated, s)
	return nil
}

func (h *handler) listSessions(w http.ResponseWriter, _ *http.Request) error {
	list := SessionList{Sessions: h.backend.Sessions()}
	if list.Sessions == nil {
		list.Sessions = []Session{} // an empty list, not null
	}
	h.reply(w, http.StatusOK, list)
	return nil
}

func (h *handler) getSession(w http.ResponseWriter, r *http.Request) error {
	s, err := h.backend.Session(r.PathValue("id"))
	if err != nil {
		return err
	}
	h.reply(w, http.StatusOK, s)
	return nil
}

func (h *handler) deleteSession(w http.ResponseWriter, r *http.Request) error {
	if err := h.backend.Delete(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *handler) markSession(w http.ResponseWriter, r *http.Request) error {
	var req MarkRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if !slices.Contains(Marks(), req.Mark) {
		return &Error{Code: CodeInvalid, Message: fmt.Sprintf("mark %q is neither %q nor %q", req.Mark, MarkReady, MarkAnswered)}
	}
	if err := h.backend.Mark(r.PathValue("id"), req.Mark); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *handler) pull(w http.ResponseWriter, r *http.Request) error {
	var req PullRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := req.Validate(); err != nil {
		return err
	}
	if req.Mode == "" {
		req.Mode = PullOnDemand
	}
	takeTime(w)
	report, err := h.backend.Pull(r.Context(), r.PathValue("namespace"), r.PathValue("name"), &req)
	if err != nil {
		return err
	}
	h.reply(w, http.StatusOK, report)
	return nil
}

// takeTime lets the answer to a request that has been read take longer than the request may: at its deadline for reading net/http would
// take the client for gone.
func takeTime(w http.ResponseWriter) {
	// Where that cannot be set there is no deadline.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
}

func (h *handler) tiers(w http.ResponseWriter, _ *http.Request) error {
	t, err := h.backend.Tiers()
	if err != nil {
		return err
	}
	h.reply(w, http.StatusOK, t)
	return nil
}

func (h *handler) drain(w http.ResponseWriter, _ *http.Request) error {
	h.backend.Drain()
	h.reply(w, http.StatusAccepted, h.backend.Health())
	return nil
}

func (h *handler) health(w http.ResponseWriter, _ *http.Request) error {
	h.reply(w, http.StatusOK, h.backend.Health())
	return nil
}

func (h *handler) metrics(w http.ResponseWriter, r *http.Request) error {
	if h.prom == nil {
		return &Error{Code: CodeNotFound, Message: "this server measures nothing"}
	}
	h.prom.ServeHTTP(w, r)
	return nil
}

// decode reads exactly one JSON value with known fields into v.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, MaxRequestBytes))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil || !isTooLarge(err) {
			err = errors.New("there is more after the JSON object")
		}
	}
	if isTooLarge(err) {
		return &Error{Code: CodeTooLarge, Message: fmt.Sprintf("the body is larger than %d bytes", MaxRequestBytes)}
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the body is empty")
	}
	return &Error{Code: CodeInvalid, Message: "read request: " + strings.TrimPrefix(err.Error(), "json: ")}
}

func isTooLarge(err error) bool {
	var tooLarge *http.MaxBytesError
	return errors.As(err, &tooLarge)
}

// Serve answers requests on l until ctx ends; requests that are then in progress have grace to end. It owns l.
// Returns nil after ctx has ended.
func Serve(ctx context.Context, l net.Listener, h http.Handler, grace time.Duration) error {
	srv := &http.Server{
		Handler: h,
		// Local clients send a request at once; these bounds only keep a broken one from holding a connection.
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	ctx, cancel := context.WithCancel(ctx)
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		if err := srv.Shutdown(end); err != nil {
			stopped <- srv.Close()
			return
		}
		stopped <- nil
	}()
	err := srv.Serve(l)
	asked := ctx.Err() != nil
	cancel()
	closeErr := <-stopped
	if asked {
		return closeErr
	}
	return fmt.Errorf("serve on %s: %w", l.Addr(), err)
}
