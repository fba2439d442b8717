package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/checkpoint"
	"thaw/internal/testenv"
	"thaw/pagestore"
	"thaw/restore/criu"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestThisHostIsDescribedAndLacksNothingOfItself(t *testing.T) {
	h := thisHost()
	if h.Kernel == "" || h.Arch == "" || len(h.CPUFlags) == 0 {
		t.Errorf("this host is described as %+v", h)
	}
	if got := h.lacks(&h); got != nil {
		t.Errorf("this host lacks of itself: %v", got)
	}
}

func TestAHostThatLacksSomethingIsToldSo(t *testing.T) {
	frozen := Host{Arch: "amd64", CPUFlags: []string{"avx2", "avx512f", "smep", "sse2"}}
	for _, tt := range []struct {
		name string
		now  Host
		want []string // parts of the warnings
	}{
		{"the same", Host{Arch: "amd64", CPUFlags: []string{"avx2", "avx512f", "sse2"}}, nil},
		{"more", Host{Arch: "amd64", CPUFlags: []string{"amx", "avx2", "avx512f", "sse2"}}, nil},
		{"one feature less", Host{Arch: "amd64", CPUFlags: []string{"avx2", "sse2"}}, []string{"avx512f"}},
		{"less of what only the kernel sees", Host{Arch: "amd64", CPUFlags: []string{"avx2", "avx512f", "sse2"}}, nil},
		{"another architecture", Host{Arch: "arm64"}, []string{"arm64"}},
		{"an unknown CPU", Host{Arch: "amd64"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := frozen.lacks(&tt.now)
			if len(got) != len(tt.want) {
				t.Fatalf("warnings: %q, want %d", got, len(tt.want))
			}
			for i, want := range tt.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("warning %q does not name %s", got[i], want)
				}
			}
		})
	}
}

func TestHostSurvivesTheStore(t *testing.T) {
	in := Host{Kernel: "6.18", Arch: "amd64", CRIU: "4.2.1", Runtime: RuntimeRunc, Repeat: Repeat{FileLocks: true}}
	raw, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := parseHost(raw)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, out); diff != "" {
		t.Errorf("host (-in +out):\n%s", diff)
	}
	if _, err := parseHost(json.RawMessage(`[]`)); err == nil {
		t.Error("a list was read as a host")
	}
	if h, err := parseHost(nil); err != nil || h.Kernel != "" {
		t.Errorf("no host was read as %+v, %v", h, err)
	}
}

func TestCRIUVersionsAreComparedByNumber(t *testing.T) {
	for version, want := range map[string]bool{
		"3.17.1": false, "4.0": false, "4.1.1": false, "4.2": true, "4.2.1": true, "4.10": true, "5.0": true, "v-next": true,
	} {
		if got := recentEnough(version); got != want {
			t.Errorf("recentEnough(%q) = %v", version, got)
		}
	}
}

// criuOf makes a program called criu that runs a shell script.
func criuOf(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "criu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func newStore(t *testing.T) *pagestore.Store {
	t.Helper()
	store, err := pagestore.Create(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

func named(s string) pagestore.Name {
	return pagestore.Name{Namespace: pagestore.DefaultNamespace, Snapshot: s}
}

const recentCRIU = `case "$1" in --version) echo "Version: 4.2.1";; *) echo ran >> "$(dirname "$0")/ran"; exit 1;; esac`

func TestFreezeFindsOutBeforehandWhatCannotWork(t *testing.T) {
	store := newStore(t)
	if _, err := store.Import(t.Context(), named("taken"), pagestore.Input{}, nil); err != nil {
		t.Fatal(err)
	}
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "core-1.img"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	self := os.Getpid()
	for _, tt := range []struct {
		name string
		criu string
		o    FreezeOptions
		want error
	}{
		{"an old CRIU", `echo "Version: 3.17.1"`, FreezeOptions{PID: self, Import: ImportOptions{Name: named("new")}}, ErrCRIUTooOld},
		{"a name that is taken", recentCRIU, FreezeOptions{PID: self, Import: ImportOptions{Name: named("taken")}}, pagestore.ErrExists},
		{"a name that is none", recentCRIU, FreezeOptions{PID: self, Import: ImportOptions{Name: named("a b")}}, pagestore.ErrName},
		{"a process that is not there", recentCRIU, FreezeOptions{PID: 1 << 30, Import: ImportOptions{Name: named("new")}}, fs.ErrNotExist},
		{"a container that is not there", recentCRIU, FreezeOptions{Container: "no-such-container", Import: ImportOptions{Name: named("new")}}, fs.ErrNotExist},
		{"a folder with other images", recentCRIU, FreezeOptions{PID: self, ImagesDir: full, Import: ImportOptions{Name: named("new")}}, ErrNotEmpty},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tools := &checkpoint.Tools{CRIU: criuOf(t, tt.criu)}
			tt.o.TempDir = t.TempDir()
			_, err := Freeze(t.Context(), store, tools, tt.o)
			if !errors.Is(err, tt.want) {
				t.Errorf("Freeze: %v, want %v", err, tt.want)
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(tools.CRIU), "ran")); err == nil {
				t.Error("CRIU was run all the same")
			}
			if left, err := os.ReadDir(tt.o.TempDir); err != nil || len(left) != 0 {
				t.Errorf("folders are left: %v, %v", left, err)
			}
		})
	}
}

func TestFreezeWithoutCRIUSaysThatItIsMissing(t *testing.T) {
	tools := &checkpoint.Tools{CRIU: filepath.Join(t.TempDir(), "criu")}
	_, err := Freeze(t.Context(), newStore(t), tools, FreezeOptions{PID: os.Getpid(), Import: ImportOptions{Name: named("new")}})
	if !errors.Is(err, checkpoint.ErrToolMissing) {
		t.Errorf("Freeze: %v, want ErrToolMissing", err)
	}
}

func TestFreezeOfNothingOrOfTwoThingsIsRefused(t *testing.T) {
	for _, o := range []FreezeOptions{{}, {PID: 1, Container: "c"}} {
		if _, err := Freeze(t.Context(), newStore(t), &checkpoint.Tools{}, o); err == nil {
			t.Errorf("Freeze of %+v returned no error", o)
		}
	}
}

func TestAFailedDumpLeavesNothing(t *testing.T) {
	tools := &checkpoint.Tools{CRIU: criuOf(t, recentCRIU)}
	o := FreezeOptions{PID: os.Getpid(), TempDir: t.TempDir(), Import: ImportOptions{Name: named("new")}}
	_, err := Freeze(t.Context(), newStore(t), tools, o)
	var tool *checkpoint.Error
	if !errors.As(err, &tool) {
		t.Errorf("Freeze: %v, want CRIU's error", err)
	}
	if left, err := os.ReadDir(o.TempDir); err != nil || len(left) != 0 {
		t.Errorf("folders are left: %v, %v", left, err)
	}
}

// dumpsNothing is a CRIU that says that it dumped and writes images that cannot be read.
const dumpsNothing = `
case "$1" in --version) echo "Version: 4.2.1"; exit 0;; esac
while [ $# -gt 0 ]; do [ "$1" = --images-dir ] && dir=$2; shift; done
echo garbage > "$dir/inventory.img"`

func TestImagesOfAProcessThatIsGoneAreKeptWhenTheImportFails(t *testing.T) {
	tools := &checkpoint.Tools{CRIU: criuOf(t, dumpsNothing)}
	o := FreezeOptions{PID: os.Getpid(), TempDir: t.TempDir(), Import: ImportOptions{Name: named("new")}}
	_, err := Freeze(t.Context(), newStore(t), tools, o)
	var kept *KeptError
	if !errors.As(err, &kept) || !errors.Is(err, criu.ErrImages) {
		t.Fatalf("Freeze: %v, want a KeptError over ErrImages", err)
	}
	if _, err := os.Stat(filepath.Join(kept.ImagesDir, "inventory.img")); err != nil {
		t.Errorf("the images are not where the error says: %v", err)
	}

	o.Dump.LeaveRunning, o.TempDir = true, t.TempDir()
	_, err = Freeze(t.Context(), newStore(t), tools, o)
	if errors.As(err, &kept) || !errors.Is(err, criu.ErrImages) {
		t.Errorf("Freeze of a process that goes on: %v, want ErrImages alone", err)
	}
	if left, err := os.ReadDir(o.TempDir); err != nil || len(left) != 0 {
		t.Errorf("folders are left: %v, %v", left, err)
	}
}

func TestWhatIsDoneBehindTheDumpCanFailTheFreeze(t *testing.T) {
	tools := &checkpoint.Tools{CRIU: criuOf(t, dumpsNothing)}
	fails := errors.New("no room")
	o := FreezeOptions{PID: os.Getpid(), TempDir: t.TempDir(), Import: ImportOptions{Name: named("new")}}
	o.Dumped = func(context.Context) error {
		if found, _ := filepath.Glob(filepath.Join(o.TempDir, "*", "images", "inventory.img")); len(found) != 1 {
			t.Errorf("images are %q, want that they are written", found)
		}
		return fails
	}
	_, err := Freeze(t.Context(), newStore(t), tools, o)
	var kept *KeptError
	if !errors.As(err, &kept) || !errors.Is(err, fails) || errors.Is(err, criu.ErrImages) {
		t.Errorf("Freeze: %v, want a KeptError over %v, and no import", err, fails)
	}
}

func TestCRIUsWordsForATakenNumberAreUnderstood(t *testing.T) {
	taken := fmt.Errorf("restore: %w", &checkpoint.Error{Op: "criu restore", Err: errors.New("exit status 1"), Lines: []string{
		"Error (criu/cr-restore.c:1237): Can't fork for 15551: File exists", "Error (criu/cr-restore.c:2331): Restoring FAILED.",
	}})
	if !pidTaken(taken) {
		t.Error("not understood")
	}
	other := &checkpoint.Error{Op: "criu restore", Err: errors.New("exit status 1"), Lines: []string{"Can't open file: File exists"}}
	if pidTaken(other) || pidTaken(errors.New("Can't fork for 1: File exists")) {
		t.Error("another failure is taken for it")
	}
}
