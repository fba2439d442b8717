package tracer

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"thaw/internal/cprogram"
	"thaw/internal/testenv"
	"thaw/restore/tracer/trace"
)

//go:embed testdata/toucher.c
var toucherSource []byte

// toucher is a process that touches fresh pages when it is told to.
type toucher struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startToucher(tb testing.TB) *toucher {
	tb.Helper()
	testenv.NeedCC(tb)
	path, err := cprogram.Build("toucher", toucherSource)
	if err != nil {
		tb.Fatal(err)
	}
	c := &toucher{cmd: exec.Command(path)}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		tb.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		c.in.Close()
		if err := c.cmd.Wait(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

// touch has it write to n pages at addresses that it never used before, and returns how long that took.
func (c *toucher) touch(tb testing.TB, n int) time.Duration {
	tb.Helper()
	if _, err := fmt.Fprintln(c.in, n); err != nil {
		tb.Fatal(err)
	}
	var took int64
	if _, err := fmt.Fscanln(c.out, &took); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(took)
}

// BenchmarkFirstTouch is what a first touch of anonymous memory takes, in the process that touches: without a tracer,
// while another process is traced, and traced itself.
func BenchmarkFirstTouch(b *testing.B) {
	testenv.NeedTracing(b)
	for _, who := range []string{"untraced", "other", "traced"} {
		b.Run(who, func(b *testing.B) {
			c, other := startToucher(b), startToucher(b)
			target := map[string]*toucher{"traced": c, "other": other}[who]
			if target != nil {
				record := startRecording(b, target.cmd.Process.Pid)
				defer record()
			}
			const pages = 4096
			var took time.Duration
			n := 0
			for b.Loop() {
				took += c.touch(b, pages)
				n += pages
			}
			b.ReportMetric(float64(took.Nanoseconds())/float64(n), "ns/page")
			b.ReportMetric(0, "ns/op") // it counts what the test does, too
		})
	}
}

// BenchmarkStart is what it takes until a recording runs, by the helper and without one.
func BenchmarkStart(b *testing.B) {
	testenv.NeedTracing(b)
	for name, start := range starters {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				r, err := start(b.Context(), Target{Later: true}, nil)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				r.Close()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkChoose is what it takes to choose a process: the first one, and one that is recorded already.
func BenchmarkChoose(b *testing.B) {
	testenv.NeedTracing(b)
	c, err := Start(b.Context(), Target{Later: true}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	b.Run("again", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.Choose(b.Context(), os.Getpid()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			r, err := Start(b.Context(), Target{Later: true}, nil)
			if err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if _, err := r.Choose(b.Context(), os.Getpid()); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			r.Close()
			b.StartTimer()
		}
	})
}

// startRecording has a helper record and throws the events away. The function that it returns ends that.
func startRecording(b *testing.B, pid int) func() {
	b.Helper()
	r, err := Start(b.Context(), Target{PIDs: []int{pid}}, &Options{MaxPages: 1 << 23})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error)
	go func() {
		events := make([]trace.Event, maxEvents)
		for {
			if _, err := r.Next(events); err != nil {
				done <- err
				return
			}
		}
	}()
	return func() {
		r.Stop()
		if err := <-done; !errors.Is(err, io.EOF) {
			b.Error(err)
		}
		if end := r.Ending(); end.LostRing+end.LostSpace > 0 {
			b.Errorf("lost %d and %d events: what was measured is not a recording", end.LostRing, end.LostSpace)
		}
		r.Close()
	}
}
