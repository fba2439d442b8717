package runner

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

const wholeLife = `
import say {"event":"imported","seconds":0.25}
load say {"event":"loaded","seconds":{"import":1,"construct":2,"enter_snap":3}}
prepare say {"event":"prepared","problems":[{"kind":"connection","what":"w","hint":"h","blocks":true}],"generators":[{"where":"m.a","type":"t"}],"seconds":{"gc":0.5}}
boot say {"event":"ready","seconds":{"refresh":1,"after_restore":2,"enter":3},"new_field":true}
embed say {"event":"result","id":ID,"value":[1,2],"seconds":0.5}
boom say {"event":"error","id":ID,"kind":"exception","type":"ValueError","message":"no","traceback":"line 1"}
page say {"event":"response","id":ID,"status":201,"headers":[["a","b"]],"body":"aGVsbG8="}
stop say {"event":"stopped"}
stop exit`

func TestAWholeConversation(t *testing.T) {
	c := start(t, wholeLife)
	ctx := t.Context()
	if s, err := c.Import(ctx, []string{"torch"}); err != nil || s != 0.25 {
		t.Errorf("import: %v, %v", s, err)
	}
	loaded, err := c.Load(ctx, &Load{File: "/app/app.py", Object: "Embedder"})
	if diff := cmp.Diff(&Loaded{Import: 1, Construct: 2, EnterSnap: 3}, loaded); err != nil || diff != "" {
		t.Errorf("load: %v\n%s", err, diff)
	}
	prepared, err := c.Prepare(ctx)
	want := &Prepared{
		Problems:   []Problem{{"connection", "w", "h", true}},
		Generators: []Generator{{"m.a", "t"}},
		Seconds:    map[string]float64{"gc": 0.5},
	}
	if diff := cmp.Diff(want, prepared); err != nil || diff != "" {
		t.Errorf("prepare: %v\n%s", err, diff)
	}
	ready, err := c.Boot(ctx, &Boot{Restored: true, Generation: strings.Repeat("ab", 16)})
	if diff := cmp.Diff(&Ready{Refresh: 1, AfterRestore: 2, Enter: 3}, ready); err != nil || diff != "" {
		t.Errorf("boot: %v\n%s", err, diff)
	}
	result, err := c.Call(ctx, &Call{Method: "embed", Args: json.RawMessage(`["a"]`)})
	if err != nil || string(result.Value) != "[1,2]" || result.Seconds != 0.5 {
		t.Errorf("call: %+v, %v", result, err)
	}
	_, err = c.Call(ctx, &Call{Method: "boom"})
	failed, ok := errors.AsType[*CallError](err)
	if diff := cmp.Diff(&CallError{Kind: "exception", Type: "ValueError", Message: "no", Traceback: "line 1"}, failed); !ok || diff != "" {
		t.Errorf("call that fails: %v\n%s", err, diff)
	}
	response, err := c.HTTP(ctx, "page", &Request{Method: "GET", Path: "/"})
	if diff := cmp.Diff(&Response{Status: 201, Headers: [][2]string{{"a", "b"}}, Body: []byte("hello")}, response); err != nil || diff != "" {
		t.Errorf("http: %v\n%s", err, diff)
	}
	if _, err := c.HTTP(ctx, "boom", &Request{}); !errors.As(err, &failed) {
		t.Errorf("request that fails: %v", err)
	}
	if err := c.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
	<-c.Ended()
}

func TestCallsAreAnsweredInAnyOrder(t *testing.T) {
	const calls = 20
	c := start(t, fmt.Sprint("slow hold\nslow free ", calls))
	var g errgroup.Group
	answers := make([]string, calls)
	for i := range calls {
		g.Go(func() error {
			r, err := c.Call(t.Context(), &Call{Method: "slow"})
			if err == nil {
				answers[i] = string(r.Value)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(answers)
	if len(slices.Compact(answers)) != calls {
		t.Errorf("answers are %v, want one for each", answers)
	}
}

// inFlight returns the number of calls without an answer.
func (c *Client) inFlight() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.calls)
}

func TestACallThatNobodyWaitsForIsForgotten(t *testing.T) {
	c := start(t, "slow hold\nlast hold\nlast free 1")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := c.Call(ctx, &Call{Method: "slow"})
		done <- err
	}()
	for c.inFlight() < 1 {
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the call: %v", err)
	}
	for range 2 {
		if _, err := c.Call(t.Context(), &Call{Method: "last"}); err != nil {
			t.Errorf("a call behind it: %v", err)
		}
	}
}

func TestARunnerThatFailsSaysWhatFailed(t *testing.T) {
	for _, op := range []string{"start", "load", "slow"} {
		t.Run(op, func(t *testing.T) {
			c := start(t, op+` say {"event":"failed","stage":"enter_snap","type":"KeyError","message":"'x'","traceback":"line 3"}`+"\n"+op+" exit 1")
			want := &FailedError{Stage: "enter_snap", Type: "KeyError", Message: "'x'", Traceback: "line 3"}
			for range 2 { // and says so again
				var err error
				if op == "slow" {
					_, err = c.Call(t.Context(), &Call{Method: "slow"})
				} else {
					_, err = c.Load(t.Context(), &Load{})
				}
				failed, ok := errors.AsType[*FailedError](err)
				if diff := cmp.Diff(want, failed); !ok || diff != "" {
					t.Errorf("got %v\n%s", err, diff)
				}
			}
		})
	}
}

func TestARunnerThatDiesIsReportedWithItsLog(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		ask          func(*Client) error
	}{
		{"before the first command", "start log first\nstart log last words\nstart exit", load},
		{"while it loads", "load log last words\nload exit", load},
		{"in a call", "slow log last words\nslow exit", slow},
		{"within a line", `slow raw {"event":"res` + "\nslow log last words\nslow exit", slow},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.ask(start(t, tt.script))
			ended, ok := errors.AsType[*EndedError](err)
			if !ok || len(ended.Log) == 0 || ended.Log[len(ended.Log)-1] != "last words" {
				t.Errorf("got %v, want the end with the last words", err)
			}
		})
	}
}

func load(c *Client) error {
	_, err := c.Load(context.Background(), &Load{})
	return err
}

func slow(c *Client) error {
	_, err := c.Call(context.Background(), &Call{Method: "slow"})
	return err
}

func TestWhatIsNoAnswerEndsTheConversation(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"no JSON", "slow say hello"},
		{"no event", "slow say {}"},
		{"an unknown event", `slow say {"event":"new"}`},
		{"an answer to no call", `slow say {"event":"result","id":77,"value":1,"seconds":1}`},
		{"a second answer", `slow say {"event":"result","id":ID,"value":1,"seconds":1}` + "\n" + `slow say {"event":"result","id":ID,"value":1,"seconds":1}`},
		{"an answer without a number", `slow say {"event":"result","value":1,"seconds":1}`},
		{"an answer of another kind", `slow say {"event":"response","id":ID,"status":200,"headers":[],"body":""}`},
		{"a status that is none", `slow say {"event":"response","id":ID,"status":7}`},
		{"a line that is too long", "slow long"},
		{"events that nobody asked for", `slow say {"event":"stopped"}` + "\n" + `slow say {"event":"stopped"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := start(t, tt.script)
			_ = slow(c)
			<-c.Ended()
			if err := slow(c); !errors.Is(err, ErrProtocol) {
				t.Errorf("got %v, want %v", err, ErrProtocol)
			}
		})
	}
	t.Run("an answer to another command", func(t *testing.T) {
		c := start(t, `load say {"event":"stopped"}`)
		if err := load(c); !errors.Is(err, ErrProtocol) {
			t.Errorf("got %v, want %v", err, ErrProtocol)
		}
	})
}

func TestACommandThatIsTooLongIsNotSent(t *testing.T) {
	c := start(t, wholeLife)
	text, _ := json.Marshal([]string{strings.Repeat("x", MaxLine)})
	if _, err := c.Call(t.Context(), &Call{Method: "embed", Args: text}); !errors.Is(err, ErrTooLong) {
		t.Errorf("got %v, want %v", err, ErrTooLong)
	}
	if _, err := c.Call(t.Context(), &Call{Method: "embed"}); err != nil {
		t.Errorf("a call behind it: %v", err)
	}
}

func TestACommandIsMadeOneAtATime(t *testing.T) {
	c, theirIn := deaf(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := c.Prepare(ctx)
		done <- err
	}()
	// A command that was not sent leaves the conversation as it is.
	if _, err := bufio.NewReader(theirIn).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := load(c); !errors.Is(err, ErrBusy) {
		t.Errorf("a second command: %v, want %v", err, ErrBusy)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	// What the runner says now may be the answer to it, so nothing more is asked.
	if err := load(c); !errors.Is(err, context.Canceled) {
		t.Errorf("a command behind it: %v, want that the conversation is over", err)
	}
	<-c.Ended()
}

// deaf makes a client of a runner that reads nothing and says nothing.
func deaf(t *testing.T) (c *Client, theirIn *os.File) {
	t.Helper()
	theirIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c = New(in, out, nil)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		theirIn.Close()
		theirOut.Close()
	})
	return c, theirIn
}

func TestAWriteThatIsCutOffEndsTheConversation(t *testing.T) {
	c, _ := deaf(t)
	ctx, cancel := context.WithCancel(t.Context())
	big, _ := json.Marshal([]string{strings.Repeat("x", 1<<20)}) // more than a pipe holds
	done := make(chan error)
	go func() {
		_, err := c.Call(ctx, &Call{Method: "m", Args: big})
		done <- err
	}()
	for len(c.writing) > 0 {
	}
	waiting, stop := context.WithCancel(t.Context())
	stop()
	if _, err := c.Call(waiting, &Call{Method: "m"}); !errors.Is(err, context.Canceled) {
		t.Errorf("a call that cannot be written yet: %v", err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the call: %v", err)
	}
	if _, err := c.Call(t.Context(), &Call{Method: "m"}); err == nil {
		t.Error("a call behind it was made")
	}
}

func TestCloseEndsCallsAndIsSeenByTheRunner(t *testing.T) {
	c, theirIn := deaf(t)
	done := make(chan error)
	go func() { done <- slow(c) }()
	for c.inFlight() < 1 {
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("the call: %v, want %v", err, ErrClosed)
	}
	if _, err := io.Copy(io.Discard, theirIn); err != nil {
		t.Errorf("the runner's input: %v, want its end", err)
	}
	if err := load(c); !errors.Is(err, ErrClosed) {
		t.Errorf("a command behind it: %v, want %v", err, ErrClosed)
	}
}

func TestTheLogKeepsItsLastLinesAndHandsAllOn(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	l := NewLog(r, &all)
	var want []string
	for i := range 30 {
		fmt.Fprintf(w, "line %d\r\n\n", i)
		want = append(want, fmt.Sprint("line ", i))
	}
	fmt.Fprint(w, strings.Repeat("y", 3*keptLineBytes), "\nno end")
	w.Close()
	l.Wait()
	want = append(want[30-keptLines+1:], strings.Repeat("y", keptLineBytes), "no end")
	if diff := cmp.Diff(want, l.Last()); diff != "" {
		t.Errorf("last lines (-want +got):\n%s", diff)
	}
	if got := all.String(); strings.Count(got, "\n") != 61 || !strings.HasSuffix(got, "no end") {
		t.Errorf("handed on %d bytes, %d lines", len(got), strings.Count(got, "\n"))
	}
}

func TestALogWhoseWriterStaysIsClosedAllTheSame(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	said := make(lineSink)
	l := NewLog(r, said)
	fmt.Fprintln(w, "still here")
	<-said
	l.Close(0)
	l.Close(0)
	if diff := cmp.Diff([]string{"still here"}, l.Last()); diff != "" {
		t.Errorf("last lines (-want +got):\n%s", diff)
	}
	if _, err := fmt.Fprintln(w, "and now"); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("it writes on: %v, want %v", err, syscall.EPIPE)
	}
}

// lineSink tells of each piece that it gets.
type lineSink chan struct{}

func (s lineSink) Write(p []byte) (int, error) {
	s <- struct{}{}
	return len(p), nil
}
