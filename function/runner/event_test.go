package runner

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLinesAreSplitWhereTheyEnd(t *testing.T) {
	long := strings.Repeat("x", 200<<10) // larger than the buffer
	l := newLines(strings.NewReader("a\n\n" + long + "\ncut off"))
	for _, want := range []string{"a", "", long} {
		got, err := l.next()
		if err != nil || string(got) != want {
			t.Errorf("got %.20q, %v, want %.20q", got, err, want)
		}
	}
	if line, err := l.next(); !errors.Is(err, io.EOF) {
		t.Errorf("got %q, %v behind the last line, want its end", line, err)
	}
	l = newLines(strings.NewReader(long + "\n"))
	l.max = 100 << 10
	if _, err := l.next(); !errors.Is(err, ErrTooLong) {
		t.Errorf("a line that is too long: %v", err)
	}
}

func FuzzEvent(f *testing.F) {
	for line := range strings.Lines(wholeLife) {
		if _, text, ok := strings.Cut(line, " say "); ok {
			f.Add([]byte(strings.ReplaceAll(strings.TrimSpace(text), "ID", "1")))
		}
	}
	for _, text := range []string{
		`{"event":"failed","stage":"load","type":"T","message":"m","traceback":""}`, `{"event":"result","id":-1}`,
		`{"event":"result","id":1,"seconds":"x"}`, `{"event":"loaded","seconds":[1]}`, `{"event":"response","id":1,"status":200,"body":"%"}`, `[]`, `null`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := parseEvent(line)
		if err != nil {
			if e != nil || !errors.Is(err, ErrProtocol) {
				t.Errorf("got %+v and %v", e, err)
			}
			return
		}
		// What was taken can be used.
		switch e.Event {
		case "failed":
			_ = e.failed().Error()
		case "result", "error":
			r, err := e.result()
			if (r == nil) == (err == nil) {
				t.Errorf("result %+v and error %v", r, err)
			}
		case "ready":
			_ = seconds[Ready](e)
		}
	})
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nb\n\nc"), 3)
	f.Fuzz(func(t *testing.T, data []byte, limit int) {
		limit = min(max(limit, 1), 100)
		l := newLines(bytes.NewReader(data))
		l.max = limit
		var got [][]byte
		var err error
		for err == nil {
			var line []byte
			if line, err = l.next(); err == nil {
				got = append(got, line)
			}
		}
		var want [][]byte
		wantErr := io.EOF
		for part := range bytes.Lines(data) {
			if len(part) > limit {
				wantErr = ErrTooLong
				break
			}
			if line, ok := bytes.CutSuffix(part, []byte("\n")); ok {
				want = append(want, line)
			}
		}
		if !errors.Is(err, wantErr) || !cmp.Equal(got, want, cmp.Comparer(bytes.Equal)) {
			t.Errorf("got %q, %v, want %q, %v", got, err, want, wantErr)
		}
	})
}

func TestCommandsAreWrittenAsAgreed(t *testing.T) {
	var out bytes.Buffer
	for _, command := range []any{
		importCommand{"import", []string{"torch"}},
		(&Load{File: "/app/app.py", Object: "E"}).command(),
		plainCommand{"prepare"},
		(&Boot{Restored: true, Generation: "ab", CPUs: []int{0}, FrozenAt: 1.5}).command(),
		(&Boot{KeepRandom: true}).command(),
		callCommand{"call", 1, "m", orEmpty(nil, "[]"), orEmpty(nil, "{}")},
	} {
		out.Write(marshal(t, command))
		out.WriteByte('\n')
	}
	want := `{"op":"import","modules":["torch"]}
{"op":"load","file":"/app/app.py","object":"E","parameters":null,"env":{},"network":false,"gpu":false}
{"op":"prepare"}
{"op":"boot","restored":true,"generation":"ab","env":{},"hostname":"","cpus":[0],"reseed":true,"frozen_at":1.5}
{"op":"boot","restored":false,"generation":"","env":{},"hostname":"","cpus":null,"reseed":false,"frozen_at":null}
{"op":"call","id":1,"method":"m","args":[],"kwargs":{}}
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
