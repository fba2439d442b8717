package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"thaw/function"
	"thaw/function/instance"
	"thaw/function/registry"
	"thaw/function/runner"
	"thaw/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// fake is Functions that remembers what it was asked, and answers what it is told to.
type fake struct {
	target   *function.Target
	call     *runner.Call
	endpoint string
	request  *runner.Request

	response *runner.Response
	err      error
}

var outcome = function.Outcome{Instance: "i-7", Boot: function.BootRestored, Waited: 250 * time.Millisecond, Took: time.Second}

func (f *fake) Call(ctx context.Context, t *function.Target, c *runner.Call) (*runner.Result, *function.Outcome, error) {
	f.target, f.call = t, c
	if f.err != nil {
		return nil, nil, f.err
	}
	o := outcome
	return &runner.Result{Value: json.RawMessage(`{"a<b": [1]}`), Seconds: 0.5}, &o, ctx.Err()
}

func (f *fake) HTTP(_ context.Context, t *function.Target, endpoint string, r *runner.Request) (*runner.Response, *function.Outcome, error) {
	f.target, f.endpoint, f.request = t, endpoint, r
	if f.err != nil {
		return nil, nil, f.err
	}
	o := outcome
	return f.response, &o, nil
}

func (f *fake) Freeze(_ context.Context, t *function.Target) (*function.Frozen, error) {
	f.target = t
	if f.err != nil {
		return nil, f.err
	}
	return &function.Frozen{
		Snapshot:   registry.Snapshot{Name: "fn.a.B", Template: "template.t", Bytes: 8192, NewBytes: 4096},
		Report:     &instance.FreezeReport{Stopped: 30 * time.Millisecond, Writing: 20 * time.Millisecond},
		Took:       2 * time.Second,
		Templates:  time.Second,
		Generators: []string{"app.rng (random.Random)"},
	}, nil
}

func (f *fake) Instances() []function.InstanceInfo {
	return []function.InstanceInfo{{App: "a", Object: "B", ID: "i-7", PID: 4711, Boot: function.BootCold, Calls: 3, Busy: 1}}
}

// answer is what the handler has answered.
type answer struct {
	status int
	header http.Header
	body   string
}

// serve puts a request to the handler in front of f.
func (f *fake) serve(r *http.Request) *answer {
	w := httptest.NewRecorder()
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "a_metric 1\n") })
	NewHandler(f, Options{Metrics: metrics}).ServeHTTP(w, r)
	return &answer{w.Code, w.Header(), w.Body.String()}
}

func errorIn(t *testing.T, res *answer) *Error {
	t.Helper()
	var e ErrorBody
	if json.Unmarshal([]byte(res.body), &e) != nil || e.Error.Code == "" || res.header.Get("Content-Type") != "application/json" {
		t.Errorf("%d with the body %q is no error", res.status, res.body)
	}
	return &e.Error
}

func TestACallReachesItsMethod(t *testing.T) {
	for _, tt := range []struct {
		name, path, body string
		target           function.Target
		call             runner.Call
	}{
		{
			"a method with arguments by name", "/v1/apps/a/B/m", ` {"x": 1} `,
			function.Target{App: "a", Object: "B"}, runner.Call{Method: "m", Kwargs: json.RawMessage(`{"x": 1}`)},
		},
		{
			"a method with arguments in order", "/v1/apps/a/B/m", "[1]\n",
			function.Target{App: "a", Object: "B"}, runner.Call{Method: "m", Args: json.RawMessage(`[1]`)},
		},
		{"a function without arguments", "/v1/apps/a/f", "", function.Target{App: "a", Object: "f"}, runner.Call{Method: "f"}},
		{
			"an object with parameters", "/v1/apps/a/B/m?parameters=%7B%22n%22%3A1%7D", "",
			function.Target{App: "a", Object: "B", Parameters: json.RawMessage(`{"n":1}`)}, runner.Call{Method: "m"},
		},
		{"a name with a slash in it", "/v1/apps/a%2Fb/B/m", "", function.Target{App: "a/b", Object: "B"}, runner.Call{Method: "m"}},
	} {
		f := &fake{}
		res := f.serve(httptest.NewRequest(http.MethodPost, tt.path, strings.NewReader(tt.body)))
		if diff := cmp.Diff(&tt.target, f.target); diff != "" {
			t.Errorf("%s: target (-want +got):\n%s", tt.name, diff)
		}
		if diff := cmp.Diff(&tt.call, f.call); diff != "" {
			t.Errorf("%s: call (-want +got):\n%s", tt.name, diff)
		}
		want := `{"value":{"a<b":[1]},"instance":"i-7","boot":"restored","waited_seconds":0.25,"ran_seconds":0.5,"took_seconds":1}` + "\n"
		if got := res.body; res.status != 200 || got != want || res.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: answered %d, %s, want %s", tt.name, res.status, got, want)
		}
	}
}

func TestABodyThatIsNoneOfACallIsRefused(t *testing.T) {
	for name, body := range map[string]io.Reader{
		"no JSON":           strings.NewReader("{x"),
		"two values":        strings.NewReader("{} {}"),
		"a text":            strings.NewReader(`"x"`),
		"a number":          strings.NewReader("1"),
		"more than may be":  io.LimitReader(zeros{}, MaxBody+1),
		"not a whole value": strings.NewReader("[1,"),
	} {
		f := &fake{}
		res := f.serve(httptest.NewRequest(http.MethodPost, "/v1/apps/a/B/m", body))
		if e := errorIn(t, res); res.status != http.StatusBadRequest || e.Code != CodeRequest || f.call != nil {
			t.Errorf("%s: answered %d, %+v; was called: %t", name, res.status, e, f.call != nil)
		}
	}
	f := &fake{response: &runner.Response{Status: 200}}
	if res := f.serve(httptest.NewRequest(http.MethodPut, "/web/a/B/e", io.LimitReader(zeros{}, MaxBody+1))); res.status != 400 || f.request != nil {
		t.Errorf("an endpoint with a body that is too long: %d", res.status)
	}
	if res := f.serve(httptest.NewRequest(http.MethodPut, "/web/a/B/e", io.LimitReader(zeros{}, MaxBody))); res.status != 200 || len(f.request.Body) != MaxBody {
		t.Errorf("an endpoint with a body that is as long as it may be: %d", res.status)
	}
}

// zeros is a reader without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestFailuresAreToldAsWhatTheyAre(t *testing.T) {
	failed := &runner.FailedError{Stage: "enter_snap", Type: "ValueError", Message: "no model", Traceback: "Traceback"}
	for _, tt := range []struct {
		name   string
		err    error
		status int
		want   Error
	}{
		{
			"an exception", &runner.CallError{Kind: "exception", Type: "KeyError", Message: "'x'", Traceback: "Traceback"}, 500,
			Error{Code: CodeException, Message: "KeyError: 'x'", Type: "KeyError", Traceback: "Traceback"},
		},
		{"an argument", &runner.CallError{Kind: "argument", Type: "E", Message: "m"}, 422, Error{Code: CodeArgument, Message: "E: m", Type: "E"}},
		{"a method", &runner.CallError{Kind: "method", Type: "E", Message: "m"}, 404, Error{Code: CodeNotDeployed, Message: "E: m", Type: "E"}},
		{"a result", &runner.CallError{Kind: "result", Type: "E", Message: "m"}, 500, Error{Code: CodeResult, Message: "E: m", Type: "E"}},
		{
			"a hook", &function.BootError{Target: "a/B", Err: failed}, 502,
			Error{Code: CodeStart, Message: "start a/B: enter_snap failed: ValueError: no model", Type: "ValueError", Traceback: "Traceback", Stage: "enter_snap"},
		},
		{"no container", &function.BootError{Target: "a/B", Err: errors.New("no runc")}, 502, Error{Code: CodeStart, Message: "start a/B: no runc"}},
		{
			"a runner that ends at its start", &function.BootError{Target: "a/B", Err: &runner.EndedError{}}, 502,
			Error{Code: CodeStart, Message: "start a/B: the process has ended, and its log is empty"},
		},
		{
			"a runner that ends in the call", fmt.Errorf("call: %w", &runner.EndedError{Log: []string{"bye"}}), 502,
			Error{Code: CodeEnded, Message: "call: the process has ended, the end of its log: bye"},
		},
		{"no memory", instance.ErrOutOfMemory, 502, Error{Code: CodeEnded, Message: "out of memory"}},
		{"not deployed", fmt.Errorf("app x: %w", function.ErrNotDeployed), 404, Error{Code: CodeNotDeployed, Message: "app x: not deployed"}},
		{"parameters", fmt.Errorf("%w: n", function.ErrParameters), 422, Error{Code: CodeArgument, Message: "parameters do not fit: n"}},
		{"the end", function.ErrClosing, 503, Error{Code: CodeClosing, Message: "server is ending"}},
		{"a sender that has gone", context.Canceled, statusClientGone, Error{Code: CodeInternal, Message: "context canceled"}},
		{"something else", errors.New("disk full"), 500, Error{Code: CodeInternal, Message: "disk full"}},
	} {
		f := &fake{err: tt.err}
		for _, path := range []string{"/v1/apps/a/B/m", "/web/a/B/e"} {
			res := f.serve(httptest.NewRequest(http.MethodPost, path, nil))
			if diff := cmp.Diff(&tt.want, errorIn(t, res)); diff != "" || res.status != tt.status {
				t.Errorf("%s: %s answered %d, want %d (-want +got):\n%s", tt.name, path, res.status, tt.status, diff)
			}
			if again := res.header.Get("Retry-After"); (again != "") != (tt.want.Code == CodeClosing) {
				t.Errorf("%s: Retry-After is %q", tt.name, again)
			}
		}
	}
}

func TestAnEndpointGetsTheRequestAndItsAnswerIsPassedOn(t *testing.T) {
	f := &fake{response: &runner.Response{
		Status: http.StatusTeapot,
		Headers: [][2]string{
			{"set-cookie", "a=1"}, {"Set-Cookie", "b=2"}, {"Content-Type", "text/plain"}, {"Content-Length", "999"}, {"Connection", "X-Hop"}, {"X-Hop", "1"},
			{"Transfer-Encoding", "chunked"}, {"X-Bad", "a\r\nX-Smuggled: 1"}, {"Keep-Alive", "5"},
		},
		Body: []byte("short and stout"),
	}}
	r := httptest.NewRequest(http.MethodPatch, "/web/a/B/e/x/y%20z/?b=2&parameters=%7B%7D&flag&a=1%3B2", strings.NewReader("body\x00\xff"))
	r.Header = http.Header{
		"X-Twice": {"1", "2"}, "Connection": {"keep-alive, X-Private", "X-Other"}, "X-Private": {"1"}, "X-Other": {"1"}, "Keep-Alive": {"5"}, "Te": {"trailers"},
		"Upgrade": {"h2c"}, "Proxy-Authorization": {"secret"}, "Transfer-Encoding": {"chunked"}, "Trailer": {"X"}, "Authorization": {"Bearer x"},
	}
	res := f.serve(r)
	if diff := cmp.Diff(&function.Target{App: "a", Object: "B", Parameters: json.RawMessage("{}")}, f.target); diff != "" || f.endpoint != "e" {
		t.Errorf("endpoint %s of (-want +got):\n%s", f.endpoint, diff)
	}
	got := *f.request
	headers := make(map[string]string)
	for _, kv := range got.Headers {
		headers[kv[0]] += kv[1]
	}
	got.Headers = nil
	want := runner.Request{Method: "PATCH", Path: "/x/y z/", Query: "b=2&flag&a=1%3B2", Body: []byte("body\x00\xff")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"Host": "example.com", "X-Twice": "12", "Authorization": "Bearer x"}, headers); diff != "" {
		t.Errorf("headers of the request (-want +got):\n%s", diff)
	}
	wantHeader := http.Header{"Set-Cookie": {"a=1", "b=2"}, "Content-Type": {"text/plain"}, "Thaw-Instance": {"i-7"}, "Thaw-Boot": {"restored"}}
	if diff := cmp.Diff(wantHeader, res.header); diff != "" {
		t.Errorf("headers of the answer (-want +got):\n%s", diff)
	}
	if body := res.body; res.status != http.StatusTeapot || body != "short and stout" {
		t.Errorf("answered %d, %q", res.status, body)
	}
	// The shortest one.
	f.serve(httptest.NewRequest(http.MethodGet, "/web/a/B/e", nil))
	if f.request.Path != "/" || f.request.Query != "" || f.request.Method != "GET" || len(f.request.Body) != 0 {
		t.Errorf("request %+v", f.request)
	}
}

func TestAStatusThatIsNoneIsTheAuthorsMistake(t *testing.T) {
	for _, status := range []int{100, 101, 199, 600, 999} {
		f := &fake{response: &runner.Response{Status: status, Headers: [][2]string{{"Content-Encoding", "gzip"}}}}
		res := f.serve(httptest.NewRequest(http.MethodGet, "/web/a/B/e", nil))
		if e := errorIn(t, res); e.Code != CodeResult || res.status != 500 || res.header.Get("Content-Encoding") != "" {
			t.Errorf("status %d: answered %d, %+v, %v", status, res.status, e, res.header)
		}
	}
}

func TestOtherRoutes(t *testing.T) {
	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/v1/instances", "", 200, `"id":"i-7","pid":4711,"boot":"cold"`},
		{"GET", "/v1/health", "", 200, `{"status":"ok","started":"`},
		{"GET", "/metrics", "", 200, "a_metric 1\n"},
		{
			"POST", "/v1/freeze", `{"app": "a", "object": "B", "parameters": {"n": 1}}`, 200,
			`{"snapshot":"fn.a.B","template":"template.t","bytes":8192,"new_bytes":4096,"took_seconds":2,"template_seconds":1,` +
				`"stopped_seconds":0.03,"writing_seconds":0.02,"generators":["app.rng (random.Random)"]}`,
		},
		{"POST", "/v1/freeze", `{`, 400, string(CodeRequest)},
		{"GET", "/v1/apps/a/B/m", "", 404, "calls are POST"},
		{"POST", "/v1/apps/a", "", 404, "calls are POST"},
		{"POST", "/v1/apps/a/B/m/more", "", 404, "calls are POST"},
		{"DELETE", "/", "", 404, "there is no DELETE /"},
	} {
		f := &fake{}
		res := f.serve(httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body)))
		if got := res.body; res.status != tt.status || !strings.Contains(got, tt.want) {
			t.Errorf("%s %s: answered %d, %s, want %d, %s", tt.method, tt.path, res.status, got, tt.status, tt.want)
		}
	}
	f := &fake{err: function.ErrNoSnapshots}
	res := f.serve(httptest.NewRequest(http.MethodPost, "/v1/freeze", strings.NewReader("{}")))
	if e := errorIn(t, res); res.status != http.StatusConflict || e.Code != CodeSnapshot {
		t.Errorf("an object without snapshots: %d, %+v", res.status, e)
	}
}

func TestAClientUnderstandsTheHandler(t *testing.T) {
	f := &fake{}
	path := filepath.Join(t.TempDir(), "s")
	unix, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: NewHandler(f, Options{}), ReadHeaderTimeout: time.Minute}
	ended := make(chan error)
	go func() { ended <- server.Serve(unix) }()
	t.Cleanup(func() {
		server.Close()
		<-ended
	})
	tcp := httptest.NewServer(NewHandler(f, Options{}))
	t.Cleanup(tcp.Close)
	for _, at := range []string{path, tcp.URL, tcp.URL + "/"} {
		f.err = nil
		c := NewClient(at)
		a, err := c.Call(t.Context(), "a/b", "B", "m", json.RawMessage("[1]"), json.RawMessage(`{"n": "ä&"}`))
		if err != nil || a.Instance != "i-7" || !bytes.Equal(a.Value, []byte(`{"a<b":[1]}`)) {
			t.Errorf("%s: %+v, %v", at, a, err)
		}
		want := &function.Target{App: "a/b", Object: "B", Parameters: json.RawMessage(`{"n": "ä&"}`)}
		if diff := cmp.Diff(want, f.target); diff != "" || string(f.call.Args) != "[1]" {
			t.Errorf("%s: target (-want +got):\n%s", at, diff)
		}
		if h, err := c.Health(t.Context()); err != nil || h.Status != "ok" || h.Instances != 1 {
			t.Errorf("%s: health %+v, %v", at, h, err)
		}
		if l, err := c.Instances(t.Context()); err != nil || len(l.Instances) != 1 || l.Instances[0].PID != 4711 {
			t.Errorf("%s: instances %+v, %v", at, l, err)
		}
		if z, err := c.Freeze(t.Context(), &FreezeRequest{App: "a", Object: "B"}); err != nil || z.Snapshot != "fn.a.B" {
			t.Errorf("%s: frozen %+v, %v", at, z, err)
		}
		f.err = fmt.Errorf("app x: %w", function.ErrNotDeployed)
		var told *Error
		if _, err := c.Call(t.Context(), "a", "f", "", nil, nil); !errors.As(err, &told) || told.Code != CodeNotDeployed || f.call.Method != "f" {
			t.Errorf("%s: a failure came as %v", at, err)
		}
		c.Close()
	}

	// What is no gateway, or is not there.
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "who are you", http.StatusForbidden) }))
	t.Cleanup(other.Close)
	c := NewClient(other.URL)
	defer c.Close()
	if _, err := c.Health(t.Context()); err == nil || !strings.Contains(err.Error(), "403 Forbidden") || !strings.Contains(err.Error(), "who are you") {
		t.Errorf("another server: %v", err)
	}
	c = NewClient(path + "x")
	defer c.Close()
	if _, err := c.Health(t.Context()); err == nil || !strings.Contains(err.Error(), path+"x") {
		t.Errorf("no server: %v", err)
	}
}
