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
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"thaw/function"
	"thaw/function/runner"
)

// fake is Functions that remember what they were asked for.
type fake struct {
	target function.Target
	call   *runner.Call
	req    *runner.Request
	value  string
	res    *runner.Response
	err    error
}

func (f *fake) Call(_ context.Context, t *function.Target, c *runner.Call) (*runner.Result, *function.Outcome, error) {
	f.target, f.call = *t, c
	if f.err != nil {
		return nil, nil, f.err
	}
	return &runner.Result{Value: json.RawMessage(f.value), Seconds: 0.5}, &function.Outcome{Instance: "i-1", Boot: function.BootCold, Took: time.Second}, nil
}

func (f *fake) HTTP(_ context.Context, t *function.Target, _ string, r *runner.Request) (*runner.Response, *function.Outcome, error) {
	f.target, f.req = *t, r
	if f.err != nil {
		return nil, nil, f.err
	}
	return f.res, &function.Outcome{Instance: "i-1", Boot: function.BootNone}, nil
}

func (f *fake) Freeze(_ context.Context, t *function.Target) (*function.Frozen, error) {
	f.target = *t
	return nil, f.err
}

func (f *fake) Instances() []function.InstanceInfo { return nil }

// serve puts a request to a handler in front of f, and returns its answer and what was logged.
func serve(t *testing.T, f *fake, r *http.Request) (*httptest.ResponseRecorder, string) {
	t.Helper()
	var log bytes.Buffer
	w := httptest.NewRecorder()
	NewHandler(f, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}).ServeHTTP(w, r)
	return w, log.String()
}

func post(path, body string) *http.Request {
	return httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
}

func errorIn(t *testing.T, r *httptest.ResponseRecorder) Error {
	t.Helper()
	var b ErrorBody
	if err := json.NewDecoder(r.Body).Decode(&b); err != nil {
		t.Fatalf("status %d, and the body is no ErrorBody: %v", r.Code, err)
	}
	return b.Error
}

func TestArgumentsComeByNameOrInOrder(t *testing.T) {
	for _, c := range []struct{ path, body, method, args, kwargs, parameters string }{
		{"/v1/apps/a/Obj/m", `{"x": 1}`, "m", "", `{"x": 1}`, ""},
		{"/v1/apps/a/Obj/m", ` [1, 2] `, "m", "[1, 2]", "", ""},
		{"/v1/apps/a/Obj/m", "", "m", "", "", ""},
		{"/v1/apps/a/f", "[]", "f", "[]", "", ""},
		{"/v1/apps/a/Obj/m?parameters=%7B%22n%22%3A1%7D", "", "m", "", "", `{"n":1}`},
	} {
		f := &fake{value: `"<answer>"`}
		r, _ := serve(t, f, post(c.path, c.body))
		got := []string{f.call.Method, string(f.call.Args), string(f.call.Kwargs), string(f.target.Parameters)}
		if diff := cmp.Diff([]string{c.method, c.args, c.kwargs, c.parameters}, got); diff != "" {
			t.Errorf("%s with %q (-want +got):\n%s", c.path, c.body, diff)
		}
		text, err := io.ReadAll(r.Body)
		if want := `{"value":"<answer>","instance":"i-1","boot":"cold"`; err != nil || r.Code != http.StatusOK || !strings.HasPrefix(string(text), want) {
			t.Errorf("%s: status %d, %s (%v), want %s...", c.path, r.Code, text, err, want)
		}
	}
}

func TestABodyThatIsNoArgumentsIsTheCallersFailure(t *testing.T) {
	for body, want := range map[string]string{"{": "not JSON", "1": "neither", "{} {}": "not JSON", strings.Repeat(" ", MaxBody+1): "longer than"} {
		f := &fake{}
		r, log := serve(t, f, post("/v1/apps/a/f", body))
		if e := errorIn(t, r); r.Code != http.StatusBadRequest || e.Code != CodeRequest || !strings.Contains(e.Message, want) {
			t.Errorf("%.10q: status %d, %+v, want %d and %q", body, r.Code, e, http.StatusBadRequest, want)
		}
		if f.call != nil || log != "" {
			t.Errorf("%.10q: called %v, logged %q", body, f.call, log)
		}
	}
}

func TestABodyThatBreaksOffIsTheCallersFailure(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/v1/apps/a/f", io.MultiReader(strings.NewReader("{"), &broken{io.ErrUnexpectedEOF}))
	res, log := serve(t, &fake{}, r)
	if e := errorIn(t, res); e.Code != CodeRequest || log != "" {
		t.Errorf("%+v, logged %q, want %s and nothing", e, log, CodeRequest)
	}
}

type broken struct{ err error }

func (b *broken) Read([]byte) (int, error) { return 0, b.err }

func TestFailuresAreToldByWhoseTheyAre(t *testing.T) {
	failed := &runner.FailedError{Stage: "import", Type: "ImportError", Message: "no such module", Traceback: "Traceback"}
	for _, c := range []struct {
		err    error
		code   Code
		status int
	}{
		{function.ErrNotDeployed, CodeNotDeployed, 404},
		{function.ErrParameters, CodeArgument, 422},
		{&runner.CallError{Kind: "argument", Type: "E"}, CodeArgument, 422},
		{&runner.CallError{Kind: "method", Type: "E"}, CodeNotDeployed, 404},
		{&runner.CallError{Kind: "exception", Type: "E"}, CodeException, 500},
		{&runner.CallError{Kind: "result", Type: "E"}, CodeResult, 500},
		{&function.BootError{Target: "a/f", Err: failed}, CodeStart, 502},
		{&function.BootError{Target: "a/f", Err: errors.New("no memory")}, CodeStart, 502},
		{&runner.EndedError{}, CodeEnded, 502},
		{function.ErrClosing, CodeClosing, 503},
		{errors.New("a disk fails"), CodeInternal, 500},
	} {
		r, log := serve(t, &fake{err: fmt.Errorf("call: %w", c.err)}, post("/v1/apps/a/f", ""))
		e := errorIn(t, r)
		if e.Code != c.code || r.Code != c.status || e.Message == "" {
			t.Errorf("%v: status %d, %+v, want %d, %s", c.err, r.Code, e, c.status, c.code)
		}
		if logged := log != ""; logged != (c.code == CodeInternal) {
			t.Errorf("%v: logged %q", c.err, log)
		}
		if retry := r.Header().Get("Retry-After"); (retry != "") != (c.code == CodeClosing) {
			t.Errorf("%v: Retry-After is %q", c.err, retry)
		}
	}
	r, _ := serve(t, &fake{err: &function.BootError{Target: "a/f", Err: failed}}, post("/v1/apps/a/f", ""))
	if e := errorIn(t, r); e.Stage != "import" || e.Type != "ImportError" || e.Traceback != "Traceback" {
		t.Errorf("the author's failure is told as %+v", e)
	}
}

func TestACallerThatGoesIsNoFailureOfTheServer(t *testing.T) {
	r, log := serve(t, &fake{err: context.Canceled}, post("/v1/apps/a/f", ""))
	if r.Code != statusClientGone || log != "" {
		t.Errorf("status %d, logged %q, want %d and nothing", r.Code, log, statusClientGone)
	}
}

func TestAnEndpointGetsTheRequestAsItCame(t *testing.T) {
	f := &fake{res: &runner.Response{Status: 201, Headers: [][2]string{{"x-a", "1"}, {"Connection", "close"}, {"x-b", "1\r\nx-c: 2"}}, Body: []byte("made")}}
	req := httptest.NewRequest(http.MethodPut, "/web/a/Obj/hook/in%20side/x?b=2%20&a&parameters=%7B%22n%22%3A1%7D&a=1+", strings.NewReader("body"))
	req.Header.Set("X-Signature", "s")
	req.Header.Set("Keep-Alive", "5")
	r, _ := serve(t, f, req)
	want := &runner.Request{
		Method: "PUT", Path: "/in side/x", Query: "b=2%20&a&a=1+", Headers: [][2]string{{"Host", "example.com"}, {"X-Signature", "s"}}, Body: []byte("body"),
	}
	if diff := cmp.Diff(want, f.req); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if got := string(f.target.Parameters); got != `{"n":1}` {
		t.Errorf("parameters are %s", got)
	}
	text, err := io.ReadAll(r.Body)
	if err != nil || r.Code != 201 || string(text) != "made" {
		t.Errorf("status %d, %q (%v)", r.Code, text, err)
	}
	wantHeader := http.Header{"X-A": {"1"}, "Thaw-Instance": {"i-1"}, "Thaw-Boot": {"none"}}
	if diff := cmp.Diff(wantHeader, r.Header()); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestAnAnswerThatIsNoneLeavesNothingInTheErrors(t *testing.T) {
	f := &fake{res: &runner.Response{Status: 101, Headers: [][2]string{{"Content-Encoding", "gzip"}}, Body: []byte("x")}}
	r, _ := serve(t, f, httptest.NewRequest(http.MethodGet, "/web/a/Obj/hook", nil))
	if e := errorIn(t, r); e.Code != CodeResult {
		t.Errorf("%+v, want %s", e, CodeResult)
	}
	if diff := cmp.Diff(http.Header{"Content-Type": {"application/json"}}, r.Header()); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestTheClientTellsFailuresAsTheGatewayDoes(t *testing.T) {
	f := &fake{value: "7"}
	s := httptest.NewServer(NewHandler(f, Options{}))
	defer s.Close()
	c := NewClient(s.URL)
	defer c.Close()
	a, err := c.Call(t.Context(), "a/b", "Obj", "m", json.RawMessage("[1]"), json.RawMessage(`{"n":"&"}`))
	if err != nil || string(a.Value) != "7" || a.Boot != function.BootCold {
		t.Errorf("%+v, %v", a, err)
	}
	if f.target.App != "a/b" || string(f.target.Parameters) != `{"n":"&"}` {
		t.Errorf("asked for %+v", f.target)
	}
	f.err = function.ErrNotDeployed
	var e *Error
	if _, err := c.Call(t.Context(), "a", "f", "", nil, nil); !errors.As(err, &e) || e.Code != CodeNotDeployed {
		t.Errorf("%v, want %s", err, CodeNotDeployed)
	}
	if _, err := c.Freeze(t.Context(), &FreezeRequest{App: "a", Object: "f"}); !errors.As(err, &e) || e.Code != CodeNotDeployed {
		t.Errorf("%v, want %s", err, CodeNotDeployed)
	}
	if h, err := c.Health(t.Context()); err != nil || h.Status != "ok" {
		t.Errorf("%+v, %v", h, err)
	}
	if l, err := c.Instances(t.Context()); err != nil || l.Instances == nil {
		t.Errorf("%+v, %v, want an empty list and not null", l, err)
	}
}

func TestAServerThatIsNotThereIsUnavailable(t *testing.T) {
	c := NewClient(filepath.Join(t.TempDir(), "none.sock"))
	defer c.Close()
	if _, err := c.Health(t.Context()); !errors.Is(err, ErrUnavailable) || strings.Contains(err.Error(), "http://") {
		t.Errorf("%v, want %v, and no URL", err, ErrUnavailable)
	}
}
