package runner

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Log reads what a runner says on its standard error, hands it on, and keeps the last lines for errors. It is safe for concurrent use.
type Log struct {
	r    *os.File
	done chan struct{}

	mu sync.Mutex
	// protected by mu
	last [][]byte // whole lines
	part []byte   // of a line that has not ended
}

const (
	keptLines     = 20
	keptLineBytes = 2 << 10 // of each; the rest is only handed on
)

// NewLog reads r to its end, which comes when the last process of the container has ended, and closes it. sink gets everything, in pieces
// as they come, from one goroutine; nil: nobody does. An error of the sink is not looked at. The caller waits with [Log.Wait] or [Log.Close].
func NewLog(r *os.File, sink io.Writer) *Log {
	if sink == nil {
		sink = io.Discard
	}
	l := &Log{r: r, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		defer r.Close()
		buf := make([]byte, 32<<10)
		for {
			n, err := r.Read(buf)
			if n > 0 {
				_, _ = sink.Write(buf[:n])
				l.keep(buf[:n])
			}
			if err != nil {
				return
			}
		}
	}()
	return l
}

// Wait waits for the end of the log.
func (l *Log) Wait() { <-l.done }

// Close waits for the end of the log, which is near when no process of the container is left, but for no longer than patience: one that could
// not be killed may hold its end. Then what it writes is not read any more. Closing again does nothing.
func (l *Log) Close(patience time.Duration) {
	select {
	case <-l.done:
		return
	case <-time.After(patience):
	}
	_ = l.r.SetReadDeadline(time.Unix(1, 0))
	<-l.done
}

// Last returns the last lines.
func (l *Log) Last() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, line := range l.last {
		out = append(out, string(line))
	}
	if len(l.part) > 0 {
		out = append(out, string(l.part))
	}
	return out
}

// keep adds to the last lines.
func (l *Log) keep(data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(data) > 0 {
		line, rest, ended := bytes.Cut(data, []byte{'\n'})
		room := max(0, keptLineBytes-len(l.part))
		l.part = append(l.part, line[:min(room, len(line))]...)
		data = rest
		if !ended {
			return
		}
		if text := strings.TrimRight(string(l.part), "\r \t"); text != "" {
			l.last = append(l.last, []byte(text))
			if len(l.last) > keptLines {
				l.last = slices.Delete(l.last, 0, 1)
			}
		}
		l.part = l.part[:0]
	}
}
