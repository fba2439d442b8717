package peer

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"thaw/pagestore/blob"
)

// exchange sends bytes over a connection as node a has it, and returns the whole answer but for the time of day.
func exchange(t *testing.T, n *network, keys *Keys, request string) string {
	t.Helper()
	c, err := tls.Dial("tcp", n.Addr().String(), keys.w.get().client("b"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, request)
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		return "no answer: " + err.Error()
	}
	defer resp.Body.Close()
	resp.Header.Del("Date")
	b, err := httputil.DumpResponse(resp, true)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWhatIsNotAllowedLooksLikeWhatIsNotThere(t *testing.T) {
	authority := must(NewAuthority())(t)
	a, _ := keysOf(t, authority, "a", time.Hour)
	b, _ := keysOf(t, authority, "b", time.Hour)
	n := loopback(t)
	src := &memory{blobs: map[string][]byte{secretKey: content(1000)}}
	start(t, n, NewServer(src, b, ServerOptions{Allow: onlyTeam}))
	for _, head := range []string{"", "Range: bytes=0-9\r\n", "Range: bytes=5000-\r\n", "Range: bytes=999-1000\r\n"} {
		for _, method := range []string{"GET", "HEAD"} {
			request := method + " /blob/%s HTTP/1.1\r\nHost: b\r\n" + head + "\r\n"
			missing := exchange(t, n, a, fmt.Sprintf(request, "v1/team/packs/abc"))
			before := src.lookups.Load()
			secret := exchange(t, n, a, fmt.Sprintf(request, secretKey))
			nowhere := exchange(t, n, a, fmt.Sprintf(request, "v1/secret/packs/abd"))
			unknown := exchange(t, n, a, fmt.Sprintf(request, "v1/nobody/packs/abc"))
			if secret != missing || nowhere != missing || unknown != missing {
				t.Errorf("%s %q tells them apart:\nmissing\n%s\ndenied\n%s\nneither\n%s\nno such namespace\n%s", method, head, missing, secret, nowhere, unknown)
			}
			if !strings.HasPrefix(missing, "HTTP/1.1 404 Not Found\r\n") {
				t.Errorf("%s", missing)
			}
			if src.lookups.Load() != before {
				t.Error("something was looked up before it was allowed")
			}
		}
	}
}

func TestOneNamespaceIsNoWayIntoAnother(t *testing.T) {
	authority := must(NewAuthority())(t)
	a, _ := keysOf(t, authority, "a", time.Hour)
	b, _ := keysOf(t, authority, "b", time.Hour)
	n := loopback(t)
	src := &memory{blobs: map[string][]byte{secretKey: content(10), packKey: content(10)}}
	start(t, n, NewServer(src, b, ServerOptions{Allow: onlyTeam}))
	for _, path := range []string{
		"/blob/v1/team/../secret/packs/abc", "/blob/v1/team/%2e%2e/secret/packs/abc", "/blob/v1/team%2f..%2fsecret/packs/abc", "/blob//v1/secret/packs/abc",
		"/blob/v1/team//../secret/packs/abc", "/blob/v1/team/packs/abc/", "/blob/v1/team", "/blob/v1/team/", "/blob/v1//packs/abc", "/blob/v2/team/packs/abc",
		"/blob/team/packs/abc", "/blob/", "/", "*", "/blob/v1/team/packs/abc?x=y", "/blob/v1/team/.hidden", "/blob/v1/team/packs%2Fabc",
		"http://b/blob/v1/team/../secret/packs/abc", "/blob/v1/team/packs/\\..\\..\\secret", "/blob/v1/team/" + strings.Repeat("x", 256),
		"/blob/v1/team" + strings.Repeat("/x", 15),
	} {
		if got := exchange(t, n, a, "GET "+path+" HTTP/1.1\r\nHost: b\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("%s: %.300s", path, got)
		}
	}
	if n := src.lookups.Load(); n != 0 {
		t.Errorf("%d look-ups", n)
	}
}

func TestWhatIsNoRequestForABlobIsRefused(t *testing.T) {
	authority := must(NewAuthority())(t)
	a, _ := keysOf(t, authority, "a", time.Hour)
	b, _ := keysOf(t, authority, "b", time.Hour)
	n := loopback(t)
	src := &memory{blobs: map[string][]byte{packKey: content(1000)}}
	start(t, n, NewServer(src, b, ServerOptions{Allow: onlyTeam}))
	get := "GET /blob/" + packKey + " HTTP/1.1\r\nHost: b\r\n"
	for _, tt := range []struct{ name, request, want string }{
		{"a good one", get + "\r\n", "HTTP/1.1 200 "},
		{"two ranges", get + "Range: bytes=0-1,5-6\r\n\r\n", "HTTP/1.1 400 "},
		{"two Range headers", get + "Range: bytes=0-1\r\nRange: bytes=0-1\r\n\r\n", "HTTP/1.1 400 "},
		{"a range of other units", get + "Range: pages=0-1\r\n\r\n", "HTTP/1.1 400 "},
		{"a range from the end", get + "Range: bytes=-5\r\n\r\n", "HTTP/1.1 400 "},
		{"a range backwards", get + "Range: bytes=5-4\r\n\r\n", "HTTP/1.1 400 "},
		{"a range of huge numbers", get + "Range: bytes=0-99999999999999999999\r\n\r\n", "HTTP/1.1 400 "},
		{"a range beyond the end", get + "Range: bytes=1000-\r\n\r\n", "HTTP/1.1 416 "},
		{"a range over the end", get + "Range: bytes=999-1005\r\n\r\n", "HTTP/1.1 206 "},
		{"a body", get + "Content-Length: 3\r\n\r\nabc", "HTTP/1.1 400 "},
		{"a body in chunks", get + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "HTTP/1.1 400 "},
		{"PUT", "PUT /blob/" + packKey + " HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 405 "},
		{"DELETE", "DELETE /blob/" + packKey + " HTTP/1.1\r\nHost: b\r\n\r\n", "HTTP/1.1 405 "},
		{"huge headers", get + "X: " + strings.Repeat("x", 100<<10) + "\r\n\r\n", "HTTP/1.1 431 "},
		{"a huge path", "GET /blob/v1/team/" + strings.Repeat("x/", 50<<10) + " HTTP/1.1\r\nHost: b\r\n\r\n", "HTTP/1.1 431 "},
		{"junk", "\x16\x03\x01junk\r\n\r\n", "HTTP/1.1 400 "},
		{"no host", "GET /blob/" + packKey + " HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := exchange(t, n, a, tt.request); !strings.HasPrefix(got, tt.want) {
				t.Errorf("%.200q, want %q", got, tt.want)
			}
		})
	}
}

func TestJunkInPlaceOfTLSHarmsNobody(t *testing.T) {
	authority := must(NewAuthority())(t)
	a, _ := keysOf(t, authority, "a", time.Hour)
	b, _ := keysOf(t, authority, "b", time.Hour)
	n := loopback(t)
	start(t, n, NewServer(&memory{blobs: map[string][]byte{packKey: content(10)}}, b, ServerOptions{Allow: onlyTeam}))
	for _, junk := range []string{"", "GET / HTTP/1.1\r\nHost: b\r\n\r\n", "\x16\x03\x01\xff\xff", strings.Repeat("\x00", 1<<20)} {
		c, err := net.Dial("tcp", n.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, junk)
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c) // until the server hangs up
		c.Close()
	}
	if _, err := readAll(connect(t, n, a, ClientOptions{}), packKey, 0, -1); err != nil {
		t.Error(err)
	}
}

func TestConnectionsThatAreTooManyAreClosedAndOthersGoOn(t *testing.T) {
	authority := must(NewAuthority())(t)
	a, _ := keysOf(t, authority, "a", time.Hour)
	b, _ := keysOf(t, authority, "b", time.Hour)
	n := loopback(t)
	start(t, n, NewServer(&memory{blobs: map[string][]byte{packKey: content(10)}}, b, ServerOptions{Allow: onlyTeam, Connections: 5}))
	c := connect(t, n, a, ClientOptions{})
	if _, err := c.Size(t.Context(), packKey); err != nil {
		t.Fatal(err)
	}
	var silent []net.Conn // who say nothing, and take all that is left
	for range 10 {
		conn, err := net.Dial("tcp", n.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		silent = append(silent, conn)
	}
	for _, conn := range silent[5:] { // certainly one of those that are too many, whatever the order in which they are accepted
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a connection that is too many got bytes")
		}
	}
	if _, err := c.Size(t.Context(), packKey); err != nil {
		t.Errorf("a connection that was there: %v", err)
	}
	for _, conn := range silent {
		conn.Close()
	}
}

func TestANodeThatAsksTooMuchAtATimeIsToldSoAndOthersAreNot(t *testing.T) {
	authority := must(NewAuthority())(t)
	a, _ := keysOf(t, authority, "a", time.Hour)
	c, _ := keysOf(t, authority, "c", time.Hour)
	b, _ := keysOf(t, authority, "b", time.Hour)
	protocols(t, func(t *testing.T, http2 bool) {
		n := loopback(t)
		hold := make(chan struct{})
		src := &memory{blobs: map[string][]byte{packKey: content(2 * piece)}, wrap: func(r io.Reader) io.Reader {
			return io.MultiReader(io.LimitReader(r, piece), gateReader{hold}, r)
		}}
		s := NewServer(src, b, ServerOptions{Allow: func(string, string) bool { return true }, NodeRequests: 3})
		stop := start(t, n, s)
		greedy := connect(t, n, a, ClientOptions{http2: http2})
		var group sync.WaitGroup
		for range 3 {
			r, err := greedy.Open(t.Context(), packKey, 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			group.Go(func() {
				defer r.Close()
				if _, err := io.Copy(io.Discard, r); err != nil {
					t.Error(err)
				}
			})
		}
		if _, err := greedy.Size(t.Context(), packKey); !errors.Is(err, blob.ErrBusy) {
			t.Errorf("the fourth: %v", err)
		}
		if _, err := connect(t, n, c, ClientOptions{http2: http2}).Size(t.Context(), packKey); err != nil {
			t.Errorf("another node: %v", err)
		}
		close(hold)
		group.Wait()
		stop()
		if len(s.busy) > 0 {
			t.Errorf("requests are counted that are over: %v", s.busy)
		}
	})
}

func TestEachRequestIsReported(t *testing.T) {
	authority := must(NewAuthority())(t)
	a, _ := keysOf(t, authority, "a", time.Hour)
	b, _ := keysOf(t, authority, "b", time.Hour)
	n := loopback(t)
	seen := make(chan Served, 10)
	src := &memory{blobs: map[string][]byte{packKey: content(1000)}}
	start(t, n, NewServer(src, b, ServerOptions{Allow: onlyTeam, Served: func(s Served) { seen <- s }}))
	c := connect(t, n, a, ClientOptions{})
	for _, tt := range []struct {
		key  string
		want Served
	}{
		{packKey, Served{Node: "a", Namespace: "team", Status: 206, Bytes: 100}},
		{secretKey, Served{Node: "a", Namespace: "secret", Status: 404}},
	} {
		readAll(c, tt.key, 10, 100)
		got := <-seen
		got.Elapsed = 0
		if got != tt.want {
			t.Errorf("%+v, want %+v", got, tt.want)
		}
	}
}

// A client that takes nothing holds no request, and so no blob, for ever.
func TestAClientThatDoesNotReadIsHungUpOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		authority := must(NewAuthority())(t)
		a, _ := keysOf(t, authority, "a", time.Hour)
		b, _ := keysOf(t, authority, "b", time.Hour)
		n := inMemory()
		seen := make(chan Served, 1)
		src := &memory{blobs: map[string][]byte{packKey: content(10 * piece)}}
		stop := start(t, n, NewServer(src, b, ServerOptions{Allow: onlyTeam, Stall: 30 * time.Second, Served: func(s Served) { seen <- s }}))
		c := tls.Client(must(n.dial(t.Context(), "", ""))(t), a.w.get().client("b"))
		io.WriteString(c, "GET /blob/"+packKey+" HTTP/1.1\r\nHost: b\r\n\r\n")
		if _, err := io.ReadFull(c, make([]byte, 2*piece)); err != nil {
			t.Error(err)
		}
		if s := <-seen; s.Bytes >= 10*piece || s.Elapsed < 30*time.Second || s.Elapsed > 35*time.Second {
			t.Errorf("%+v", s)
		}
		c.NetConn().Close()
		stop()
	})
}

func TestAClientThatSaysNothingIsHungUpOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		authority := must(NewAuthority())(t)
		a, _ := keysOf(t, authority, "a", time.Hour)
		b, _ := keysOf(t, authority, "b", time.Hour)
		n := inMemory()
		stop := start(t, n, NewServer(&memory{}, b, ServerOptions{Allow: onlyTeam}))
		before := must(n.dial(t.Context(), "", ""))(t) // before the handshake
		after := tls.Client(must(n.dial(t.Context(), "", ""))(t), a.w.get().client("b"))
		io.WriteString(after, "GET /blob/")
		for _, c := range []net.Conn{before, after} {
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Error(err)
			}
			c.Close()
		}
		stop()
	})
}

func TestMembersAreThoseOfTheFileAsItIs(t *testing.T) {
	path := t.TempDir() + "/access.json"
	replace(t, path, []byte(`{"namespaces": {"team": ["a", "b"], "public": ["*"], "nobody": []}}`))
	access := must(OpenAccess(path, nil))(t)
	check := func(want string) {
		t.Helper()
		var got strings.Builder
		for _, namespace := range []string{"team", "public", "nobody", "other", "*", ""} {
			for _, node := range []string{"a", "c", "*", ""} {
				if access.Allows(node, namespace) {
					fmt.Fprintf(&got, "%s:%s ", namespace, node)
				}
			}
		}
		if strings.TrimSpace(got.String()) != want {
			t.Errorf("allowed are %s, want %s", got.String(), want)
		}
	}
	check("team:a public:a public:c public:* public:")
	for _, bad := range []string{"", "junk", `{"namespaces": {"te/am": []}}`, `{"namespaces": {"team": ["a/b"]}}`, `{"nodes": []}`, `{} {}`, `[]`} {
		replace(t, path, []byte(bad))
		check("team:a public:a public:c public:* public:")
		if _, err := OpenAccess(path, nil); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	// In place, without a rename, and as long as before: the time stamp may be the same, too.
	replace(t, path, []byte(`{"namespaces": {"team": ["a"]}}`))
	check("team:a")
	if err := os.WriteFile(path, []byte(`{"namespaces": {"team": ["c"]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	check("team:c")
}

func TestAMemberThatIsNoneAnyMoreGetsNothingOnItsOldConnection(t *testing.T) {
	authority := must(NewAuthority())(t)
	a, _ := keysOf(t, authority, "a", time.Hour)
	b, _ := keysOf(t, authority, "b", time.Hour)
	path := t.TempDir() + "/access.json"
	replace(t, path, []byte(`{"namespaces": {"team": ["a"]}}`))
	access := must(OpenAccess(path, nil))(t)
	n := loopback(t)
	start(t, n, NewServer(&memory{blobs: map[string][]byte{packKey: content(10)}}, b, ServerOptions{Allow: access.Allows}))
	c := connect(t, n, a, ClientOptions{})
	if _, err := c.Size(t.Context(), packKey); err != nil {
		t.Fatal(err)
	}
	replace(t, path, []byte(`{"namespaces": {"team": []}}`))
	if _, err := c.Size(t.Context(), packKey); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("error is %v", err)
	}
}

func TestNobodyIsAllowedAnythingByDefault(t *testing.T) {
	authority := must(NewAuthority())(t)
	a, _ := keysOf(t, authority, "a", time.Hour)
	b, _ := keysOf(t, authority, "b", time.Hour)
	n := loopback(t)
	start(t, n, NewServer(&memory{blobs: map[string][]byte{packKey: content(10)}}, b, ServerOptions{}))
	if _, err := connect(t, n, a, ClientOptions{}).Size(t.Context(), packKey); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("error is %v", err)
	}
}
