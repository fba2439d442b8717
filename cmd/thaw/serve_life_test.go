package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/function"
	"thaw/function/gateway"
	"thaw/function/registry"
)

// A meeting is a server that says hello to its guests when so many are there at the same time.
type meeting struct {
	host   string
	port   int
	guests atomic.Int64 // that have come
}

func newMeeting(t *testing.T, address string, guests int) *meeting {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	m := &meeting{host: address, port: l.Addr().(*net.TCPAddr).Port}
	var g sync.WaitGroup
	g.Go(func() {
		var there []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			m.guests.Add(1)
			if there = append(there, c); len(there) == guests {
				for _, c := range there {
					fmt.Fprintln(c, "hello")
					c.Close()
				}
				there = nil
			}
		}
		for _, c := range there {
			c.Close()
		}
	})
	t.Cleanup(func() {
		l.Close()
		g.Wait()
	})
	return m
}

func TestFunctionsComeAndGo(t *testing.T) {
	f := newServed(t)
	flags, address := bridgeFlags()
	s := f.serveFunctions(t, append(flags, noIdle, "--listen=127.0.0.1:0")...)
	d := f.deploy(t, "life")
	if !d.New || !strings.HasPrefix(d.Next, "the first boots of ") || !strings.Contains(d.Next, "Counter") {
		t.Errorf("deployed %+v", d)
	}

	t.Run("the first boots are cold, then a snapshot is taken, and the others are restored", func(t *testing.T) {
		var made []string
		for range function.DefaultFreezeAfter {
			a := f.ask(t, "life/Counter.add", 5)
			expectBoot(t, a, function.BootCold)
			made = append(made, countOf(t, a, 15))
		}
		if made[0] == made[1] {
			t.Error("two cold boots have made the same object")
		}
		snap := f.awaitSnapshot(t, "life", "Counter")
		var again []string
		for range 3 {
			a := f.ask(t, "life/Counter.add", 5)
			expectBoot(t, a, function.BootRestored)
			again = append(again, countOf(t, a, 15))
		}
		if again[0] != again[1] || again[1] != again[2] || again[0] == made[0] {
			t.Errorf("restores have the objects %v, want the same one", again)
		}
		after := f.awaitSnapshot(t, "life", "Counter")
		if after.Name != snap.Name || after.Uses != 3 || after.ColdSeconds <= 0 || after.RestoredSeconds <= 0 || after.Faster <= 0 || after.Bytes == 0 {
			t.Errorf("functions shows %+v", after)
		}
		row := regexp.MustCompile(regexp.QuoteMeta(snap.Name) + `\s+Counter\s+\d+s\s.*\s3\s+\S+s\s+\S+s\s+\S+x\s+good`)
		if out := f.must(t, nil, "functions", f.app("life")).stdout; !row.MatchString(out) {
			t.Errorf("functions shows\n%s\nwant a line as %v", out, row)
		}
	})
	t.Run("instances that nobody calls stop, with their exit hooks", func(t *testing.T) {
		f.awaitLog(t, "life/Counter", "stopped at 15")
		f.awaitNoInstances(t, "life")
	})
	t.Run("the log says what happens with snapshots", func(t *testing.T) {
		f.awaitLog(t, "life/Counter", "thaw: creating memory snapshot")
		f.awaitLog(t, "life/Counter", "later instances are restored from it")
	})
	t.Run("other parameters are another object, with a snapshot of its own", func(t *testing.T) {
		a := f.askWith(t, `{"start": 100}`, "life/Counter.add", 1)
		expectBoot(t, a, function.BootCold)
		countOf(t, a, 101)
		if frozen := f.freezeNow(t, "life/Counter", `{ "start": 100 }`); frozen.Bytes == 0 || frozen.Stopped <= 0 || frozen.Writing <= 0 {
			t.Errorf("frozen: %+v", frozen)
		}
		a = f.askWith(t, `{"start":100}`, "life/Counter.add", 1)
		expectBoot(t, a, function.BootRestored)
		countOf(t, a, 101)
		countOf(t, f.ask(t, "life/Counter.add", 1), 11)
	})
	t.Run("calls at the same time get an instance each", func(t *testing.T) {
		m := newMeeting(t, address, 4)
		together(4, func(int) {
			a := f.ask(t, "life/Counter.meet", m.host, m.port)
			if got := valueOf[string](t, a); got != "hello\n" {
				t.Errorf("one was told %q", got)
			}
			expectBoot(t, a, function.BootRestored)
		})
	})
	t.Run("one instance takes as many calls at a time as its object says", func(t *testing.T) {
		for _, object := range []string{"Crowd", "AsyncCrowd"} {
			instances := make([]string, 3)
			together(3, func(i int) {
				a := f.ask(t, "life/"+object+".meet")
				instances[i] = a.Instance
			})
			if instances[0] != instances[1] || instances[1] != instances[2] {
				t.Errorf("%s: the calls were taken by %v, want one", object, instances)
			}
		}
	})
	t.Run("arguments by name, in order, from standard input", func(t *testing.T) {
		for _, args := range []string{`{"x": 1.5}`, `[1.5]`} {
			if r := f.must(t, nil, "call", f.target("life/square"), args); r.stdout != "2.25\n" {
				t.Errorf("square%s printed %q", args, r.stdout)
			}
		}
		cmd := f.command("thaw", "call", f.target("life/square"), "-")
		cmd.Stdin = strings.NewReader("[3]\n")
		if r := finish(t, cmd); r.code != 0 || r.stdout != "9\n" {
			t.Errorf("square of standard input: %+v", r)
		}
	})
	listening := regexp.MustCompile(`address=(\S+)`).FindStringSubmatch(s.log.String())
	if listening == nil {
		t.Fatalf("the log does not say the address:\n%s", s.log.String())
	}
	url := "http://" + listening[1]
	if r := f.must(t, nil, "call", f.target("life/square"), "[4]", "--api", url); r.stdout != "16\n" {
		t.Errorf("square over TCP printed %q", r.stdout)
	}
	t.Run("HTTP over TCP", func(t *testing.T) { f.expectHTTP(t, http.DefaultClient, url) })
	t.Run("HTTP over the socket", func(t *testing.T) {
		transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", f.api) }}
		defer transport.CloseIdleConnections()
		f.expectHTTP(t, &http.Client{Transport: transport}, "http://thaw")
	})
}

// expectHTTP calls, asks endpoints and looks at the metrics.
func (f *served) expectHTTP(t *testing.T, c *http.Client, url string) {
	t.Helper()
	status, header, body := post(t, c, url+"/v1/apps/"+f.app("life")+"/Counter/add", `{"n": 1}`)
	if status != 200 || header.Get("Content-Type") != "application/json" || !strings.Contains(compact([]byte(body)), `"count":11`) {
		t.Errorf("a call was answered with %d, %s", status, body)
	}
	status, header, body = post(t, c, url+"/web/"+f.app("life")+"/page/page/a/b?q=1&q=2", "said")
	var said map[string]any
	if err := json.Unmarshal([]byte(body), &said); err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	want := map[string]any{"method": "POST", "path": "/a/b", "query": map[string]any{"q": []any{"1", "2"}}, "body": "said", "x": "yes"}
	if diff := cmp.Diff(want, said); diff != "" || status != 201 || header.Get("X-Answer") != "yes" || header.Get("Thaw-Instance") == "" {
		t.Errorf("the endpoint answered %d, %v (-want +got):\n%s", status, header, diff)
	}
	if status, _, body = post(t, c, url+"/web/"+f.app("life")+"/page/page/nothing", ""); status != 204 || body != "" {
		t.Errorf("nothing was answered with %d, %q", status, body)
	}
	if status, _, body = post(t, c, url+"/v1/apps/"+f.app("life")+"/Counter/none", ""); status != 404 || !strings.Contains(body, "not_deployed") {
		t.Errorf("a method that is none: %d, %s", status, body)
	}
	res, err := c.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`thaw_function_boots_total{app="%s",kind="cold",object="Counter",outcome="ok"} 3`, `thaw_function_freezes_total{app="%s",object="Counter",outcome="ok"} 2`,
		`thaw_function_boot_seconds_count{app="%s",kind="restored",object="Counter"}`, `thaw_function_calls_total{app="%s",object="Counter",outcome="ok"}`,
		`thaw_function_call_seconds_count{app="%s",boot="restored",object="Counter"}`,
	} {
		if want = fmt.Sprintf(want, f.app("life")); !strings.Contains(string(metrics), want) {
			t.Errorf("the metrics do not have %s:\n%s", want, metrics)
		}
	}
}

func TestAServerEndsWhenItsCallsAndExitHooksHave(t *testing.T) {
	f := newServed(t)
	flags, address := bridgeFlags()
	s := f.serveFunctions(t, append(flags, noIdle, "--freeze-after=-1")...)
	f.deploy(t, "life")
	m := newMeeting(t, address, 2)
	var call result
	var g sync.WaitGroup
	g.Go(func() { call = f.thaw(t, "call", f.target("life/Counter.meet"), jsonOf(t, []any{m.host, m.port})) })
	until(t, "the call is under way", func() bool { return m.guests.Load() == 1 })
	f.ask(t, "life/SlowToLeave.work") // its instance is on its way out when the server is told to end
	s.tell(t)
	until(t, "the server takes no more calls", func() bool {
		_, err := f.client.Health(t.Context())
		return err != nil
	})
	select {
	case <-s.ended:
		t.Error("the server has ended before its call")
	default:
	}
	guest, err := net.Dial("tcp", net.JoinHostPort(m.host, strconv.Itoa(m.port)))
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	g.Wait()
	if call.code != 0 || call.stdout != "\"hello\\n\"\n" {
		t.Errorf("the call: %+v", call)
	}
	s.stop(t)
	for target, want := range map[string]string{"life/SlowToLeave": "left as it should", "life/Counter": "stopped at 10"} {
		if lines := f.logged(t, target); !slices.ContainsFunc(lines, func(l logLine) bool { return l.Text == want }) {
			t.Errorf("the log of %s is %+v, want %q in it", target, lines, want)
		}
	}
}

func TestAServerEndsWhileItTakesASnapshot(t *testing.T) {
	f := newServed(t)
	s := f.serveFunctions(t, "--freeze-after=1")
	f.deploy(t, "life")
	for _, object := range []string{"Counter.add", "square"} {
		f.ask(t, "life/"+object, 1)
		name, _, _ := strings.Cut(object, ".")
		f.awaitLog(t, "life/"+name, "creating memory snapshot")
		s.stop(t)
		if left := f.leftoversOfInstances(t); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		s = f.serveFunctions(t, "--freeze-after=1")
	}
	f.ask(t, "life/Counter.add", 1)
	f.awaitSnapshot(t, "life", "Counter")
}

func TestAServerThatIsKilledLeavesNothingToTheNext(t *testing.T) {
	f := newServed(t)
	flags, _ := bridgeFlags()
	killed := f.serveFunctions(t, append(flags, "--freeze-after=-1")...)
	f.deploy(t, "life")
	f.freezeNow(t, "life/Counter", "")
	f.ask(t, "life/Counter.add", 1)
	first := f.instances(t, "life")[0]
	if err := killed.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-killed.ended
	if len(f.leftoversOfInstances(t)) < 3 {
		t.Error("a server that was killed has left nothing: the test tests nothing")
	}
	f.serveFunctions(t, append(flags, "--freeze-after=-1")...)
	// One that has ended, and that its parent has not looked at yet, has no program any more.
	if program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", first.PID)); err == nil || len(f.folders()) > 0 {
		t.Errorf("instances of the one before are there: %s, %v", program, f.folders())
	}
	a := f.ask(t, "life/Counter.add", 1)
	expectBoot(t, a, function.BootRestored)
	countOf(t, a, 11)
}

func TestWithoutAThawdCallsAreAnsweredCold(t *testing.T) {
	f := newServed(t)
	f.serveFunctions(t, noIdle, "--freeze-after=-1")
	f.deploy(t, "life")
	f.freezeNow(t, "life/Counter", "")
	expectBoot(t, f.ask(t, "life/Counter.add", 1), function.BootRestored)
	f.thawd.end(t, syscall.SIGTERM)
	for range 4 {
		a := f.ask(t, "life/Counter.add", 1)
		expectBoot(t, a, function.BootCold)
		countOf(t, a, 11)
	}
	// It was not the snapshot's fault.
	if all := f.snapshots(t, "life", "Counter"); len(all) != 1 || all[0].State != registry.StateGood || all[0].Failures != 0 {
		t.Errorf("functions shows %+v", all)
	}
	f.thawd = f.startThawd(t)
	expectBoot(t, f.ask(t, "life/Counter.add", 1), function.BootRestored)
}

// countOf returns what a counter was made with, whose count has to be such.
func countOf(t *testing.T, a gateway.Answer, want int) string {
	t.Helper()
	v := valueOf[struct {
		Count int
		Made  string
	}](t, a)
	if v.Count != want {
		t.Errorf("counted to %d, want %d", v.Count, want)
	}
	return v.Made
}

func post(t *testing.T, c *http.Client, url, body string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Said", "yes")
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(text)
}
