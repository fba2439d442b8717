package function

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// openLogs returns logs and a function that reads an app's, with its times cut off after they were looked at.
func openLogs(t *testing.T) (*Logs, func(suffix string) []string) {
	t.Helper()
	dir := t.TempDir()
	l, err := OpenLogs(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, func(suffix string) []string {
		t.Helper()
		text, err := os.ReadFile(LogPath(dir, app) + suffix)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
		for n, line := range lines {
			head := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z `).FindString(line)
			if head == "" {
				t.Fatalf("line %.100q has no time", line)
			}
			lines[n] = line[len(head):]
		}
		return lines
	}
}

func TestLogLines(t *testing.T) {
	l, read := openLogs(t)
	w := l.writer(app, "Cart-1")
	for _, piece := range []string{"one\ntw", "", "o\n", "\n", strings.Repeat("x", logLine), "y\n", strings.Repeat("z", 2*logLine+1) + "\n", "end"} {
		if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Errorf("Write = %d, %v", n, err)
		}
	}
	w.flush()
	w.flush()
	want := []string{
		"one", "two", "", strings.Repeat("x", logLine), "y", strings.Repeat("z", logLine), strings.Repeat("z", logLine), "z", "end",
	}
	for n := range want {
		want[n] = "Cart-1 " + want[n]
	}
	if got := read(""); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("log has %d lines, want %d: %.300q", len(got), len(want), got)
	}
}

func TestLogsOfTwoWritersAreWholeLines(t *testing.T) {
	l, read := openLogs(t)
	var g sync.WaitGroup
	for n := range 2 {
		g.Go(func() {
			w := l.writer(app, fmt.Sprintf("Cart-%d", n))
			for range 500 {
				_, _ = w.Write([]byte("hel"))
				_, _ = w.Write([]byte("lo\n"))
			}
		})
	}
	g.Wait()
	count := make(map[string]int)
	for _, line := range read("") {
		count[line]++
	}
	if len(count) != 2 || count["Cart-0 hello"] != 500 || count["Cart-1 hello"] != 500 {
		t.Errorf("lines are %v", count)
	}
}

func TestLogsBeginAnewWhenTheyAreLong(t *testing.T) {
	l, read := openLogs(t)
	w := l.writer(app, "Cart-1")
	line := append(bytes.Repeat([]byte("x"), logLine-100), '\n')
	lines := 0
	for written := 0; written <= 2*logBytes; written += len(line) {
		_, _ = w.Write(line)
		lines++
	}
	_, _ = w.Write([]byte("last\n"))
	now, before := read(""), read(".1")
	if now[len(now)-1] != "Cart-1 last" || len(now)+len(before) > lines {
		t.Errorf("%d and %d lines are kept of %d, the last is %.30q", len(before), len(now), lines, now[len(now)-1])
	}
	if st, err := os.Stat(LogPath(l.dir, app) + ".1"); err != nil || st.Size() > logBytes || st.Size() < logBytes-2*logLine {
		t.Errorf("the log before has %v, %v, want close to %d bytes", st.Size(), err, logBytes)
	}
	// Closed logs are opened again, at their end.
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	_, _ = w.Write([]byte("more\n"))
	if again := read(""); len(again) != len(now)+1 || last(again) != "Cart-1 more" {
		t.Errorf("after Close and a line there are %d lines, want %d", len(again), len(now)+1)
	}
}

func TestLogThatCannotBeWrittenStopsNobody(t *testing.T) {
	l, _ := openLogs(t)
	if err := os.Remove(l.dir); err != nil {
		t.Fatal(err)
	}
	if n, err := l.writer(app, "Cart").Write([]byte("lost\n")); n != 5 || err != nil {
		t.Errorf("Write = %d, %v", n, err)
	}
}

func TestWhatInstancesPrintIsLogged(t *testing.T) {
	l, read := openLogs(t)
	inWorld(t, func(o *Options) { o.Log = l; o.FreezeAfter = 1; o.Failures = 1 }, func(w *world) {
		w.host.prints = "no end"
		w.boots("Cart", BootCold, BootRestored)
		w.host.fail(opRestore, errTest)
		w.boots("Cart", BootCold)
		w.host.fail(opLoad, errTest)
		w.call("Cart")
	})
	text := strings.Join(read(""), "\n")
	for _, want := range []string{
		"Cart-1 no end", "Cart thaw: creating memory snapshot", "Cart thaw: snapshot fn.shop.Cart.", "failed, the instance is started cold: as the test wants it",
		"is set aside: 1 restores in a row have failed", "Cart thaw: instance could not be started: as the test wants it",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("log lacks %q:\n%s", want, text)
		}
	}
}
