package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"thaw/checkpoint"
	"thaw/control"
	"thaw/function/gateway"
	"thaw/function/registry"
	"thaw/internal/testenv"
	"thaw/pagestore"
	"thaw/restore/criu"
	"thaw/restore/workingset"
	"thaw/snapshot"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestErrorsHaveTheirExitCodes(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want Code
	}{
		{nil, OK},
		{errors.New("something"), Failure},
		{Usagef("no such flag"), Usage},
		{pagestore.ErrName, Usage},
		{pagestore.ErrNotFound, NotFound},
		{pagestore.ErrBeingRemoved, Busy},
		{pagestore.ErrNotStore, NotFound},
		{pagestore.ErrExists, Busy},
		{pagestore.ErrLocked, Busy},
		{pagestore.ErrNoSpace, NoSpace},
		{pagestore.ErrCorrupt, Corrupt},
		{pagestore.ErrMissingPack, Corrupt},
		{&pagestore.PageError{Err: pagestore.ErrCorrupt}, Corrupt},
		{&criu.ImageError{File: "mm-1.img", Entry: -1, Err: fs.ErrNotExist}, Corrupt},
		{workingset.ErrForeign, Usage},
		{workingset.ErrCorrupt, Corrupt},
		{checkpoint.ErrToolMissing, Missing},
		{snapshot.ErrCRIUTooOld, Missing},
		{snapshot.ErrPIDTaken, Busy},
		{&snapshot.KeptError{Err: pagestore.ErrNoSpace}, NoSpace},
		{control.ErrSocketTaken, Busy},
		{&control.Error{Code: control.CodeUnavailable}, Missing},
		{&control.Error{Code: control.CodeSnapshotNotFound}, NotFound},
		{&control.Error{Code: control.CodeInternal}, Failure},
		{gateway.ErrUnavailable, Missing},
		{registry.ErrNotFound, NotFound},
		{registry.ErrNotRegistry, NotFound},
		{registry.ErrNotEmpty, Busy},
		{registry.ErrCurrent, Busy},
		{registry.ErrChanged, Busy},
		{registry.ErrNoSpace, NoSpace},
		{registry.ErrCorrupt, Corrupt},
		{registry.ErrVersion, Corrupt},
		{&fs.PathError{Op: "open", Path: "/x", Err: unix.EACCES}, Permission},
		{&fs.PathError{Op: "open", Path: "/x", Err: unix.ENOENT}, NotFound},
		{&fs.PathError{Op: "write", Path: "/x", Err: unix.ENOSPC}, NoSpace},
		{context.Canceled, Interrupted},
		{errors.Join(errors.New("first"), pagestore.ErrNotFound), NotFound},
	} {
		wrapped := tt.err
		if wrapped != nil {
			wrapped = fmt.Errorf("do it: %w", tt.err)
		}
		if got, _ := Explain(wrapped); got != tt.want {
			t.Errorf("exit code of %v is %d (%s), want %d (%s)", wrapped, got, got, tt.want, tt.want)
		}
	}
}

func TestEveryCodeOfTheAPIHasAnExitCode(t *testing.T) {
	for _, c := range control.Codes() {
		got, _ := Explain(&control.Error{Code: c})
		plain := c == control.CodeInternal || c == control.CodeMethod || c == control.CodeTooLarge
		if (got == Failure) != plain {
			t.Errorf("exit code of %q is %d", string(c), got)
		}
	}
}

func TestReportTellsWhatAndWhatToDo(t *testing.T) {
	var out bytes.Buffer
	err := fmt.Errorf("open snapshot x: %w", pagestore.ErrNotFound)
	if code := Report(&out, "thaw", err, false); code != NotFound {
		t.Errorf("exit code %d", code)
	}
	want := "thaw: open snapshot x: snapshot not found\nthaw: hint: thaw snapshot ls lists the snapshots\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

func TestReportInJSONIsOneObject(t *testing.T) {
	var out bytes.Buffer
	Report(&out, "thaw", &control.Error{Code: control.CodeDraining, Message: "ending", Hint: "wait"}, true)
	var got struct {
		Error struct {
			ExitCode            int `json:"exit_code"`
			Kind, Message, Hint string
		}
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%q: %v", out.String(), err)
	}
	if e := got.Error; e.ExitCode != int(Busy) || e.Kind != "busy" || e.Message != "ending" || e.Hint != "wait" {
		t.Errorf("error is told as %+v", e)
	}
}

func TestOwnErrorsOverrideWhatTheirCauseSays(t *testing.T) {
	err := &Error{Code: Missing, Err: pagestore.ErrNotFound, Hint: "look elsewhere"}
	if code, hint := Explain(err); code != Missing || hint != "look elsewhere" {
		t.Errorf("Explain = %d, %q", code, hint)
	}
	if !errors.Is(err, pagestore.ErrNotFound) {
		t.Error("the cause is lost")
	}
}

func TestBytesAreReadAndWritten(t *testing.T) {
	for text, want := range map[string]uint64{
		"0": 0, "4096": 4096, "64KiB": 64 << 10, "64K": 64 << 10, "1.5GiB": 3 << 29, "200MiB": 200 << 20, "2T": 2 << 40,
	} {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "-1", "1XB", "9999999T", "1 2", "NaN"} {
		if got, err := ParseBytes(text); err == nil {
			t.Errorf("ParseBytes(%q) = %d, want an error", text, got)
		} else if code, _ := Explain(err); code != Usage {
			t.Errorf("ParseBytes(%q): %v is no usage error", text, err)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 10066330: "9.6 MiB", 1760936591: "1.6 GiB", 1 << 30: "1.0 GiB", 812 << 20: "812 MiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestProgressOffATerminalIsALineNowAndThen(t *testing.T) {
	var out bytes.Buffer
	p := NewProgress(&out, "importing", false)
	now := p.begun
	p.now = func() time.Time { return now }
	for i := range 50 { // five seconds
		now = p.begun.Add(time.Duration(i) * 100 * time.Millisecond)
		p.Set(uint64(i)<<20, 50<<20)
	}
	p.Done()
	want := "importing: 20.0 MiB of 50.0 MiB (40 %), 10.0 MiB/s\nimporting: 40.0 MiB of 50.0 MiB (80 %), 10.0 MiB/s\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
}

func TestQuietProgressSaysNothing(t *testing.T) {
	p := NewProgress(&bytes.Buffer{}, "importing", true)
	p.Set(1, 2)
	p.Done()
	if p != nil {
		t.Error("quiet progress is not nil")
	}
}

func TestLoggerTakesKnownFormatsAndLevels(t *testing.T) {
	var out bytes.Buffer
	log, err := NewLogger(&out, "json", "warn")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("not this")
	log.Warn("this")
	if !json.Valid(bytes.TrimSpace(out.Bytes())) || strings.Contains(out.String(), "not this") {
		t.Errorf("log is %q", out.String())
	}
	for _, bad := range [][2]string{{"xml", "info"}, {"text", "loud"}} {
		if _, err := NewLogger(&out, bad[0], bad[1]); err == nil {
			t.Errorf("logger of format %s and level %s was made", bad[0], bad[1])
		}
	}
}

func TestWhatIsWrongBeforeACommandBeginsIsUsage(t *testing.T) {
	newRoot := func() *cobra.Command {
		root := &cobra.Command{Use: "tool"}
		group := &cobra.Command{Use: "group"}
		fails := &cobra.Command{Use: "fails", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return errors.New("inside") }}
		group.AddCommand(fails)
		root.AddCommand(group)
		root.SetOut(&bytes.Buffer{})
		return root
	}
	for _, tt := range []struct {
		args []string
		want Code
	}{
		{[]string{"nosuch"}, Usage},
		{[]string{"group", "nosuch"}, Usage},
		{[]string{"group", "fails", "extra"}, Usage},
		{[]string{"group", "fails", "--nosuch"}, Usage},
		{[]string{"group", "fails"}, Failure},
		{[]string{"group"}, OK},
		{nil, OK},
	} {
		root := newRoot()
		root.SetArgs(append([]string{}, tt.args...))
		if got, _ := Explain(Execute(t.Context(), root)); got != tt.want {
			t.Errorf("exit code of %q is %d, want %d", tt.args, got, tt.want)
		}
	}
}

func TestOpenStoreMakesOneWhereThereIsNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	for range 2 {
		store, err := OpenStore(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		store.Close()
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "letter.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(other, nil); !errors.Is(err, pagestore.ErrNotEmpty) {
		t.Errorf("OpenStore of a folder with other things: %v, want ErrNotEmpty", err)
	}
}
