package blob_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"thaw/internal/durable"
	"thaw/internal/durable/durabletest"
	"thaw/internal/testenv"
	"thaw/pagestore/blob"
	"thaw/pagestore/blob/blobtest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func newDir(t *testing.T, root string) *blob.Dir {
	t.Helper()
	d, err := blob.NewDir(root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func create(t *testing.T, b blob.Bucket, key, text string) {
	t.Helper()
	if err := b.Create(t.Context(), key, strings.NewReader(text), int64(len(text))); err != nil {
		t.Fatal(err)
	}
}

func TestDir(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Bucket { return newDir(t, filepath.Join(t.TempDir(), "blobs")) })
}

func TestAFaultLeavesABlobOrNothing(t *testing.T) {
	for _, op := range []string{"create", "replace"} {
		for _, fault := range durabletest.Faults {
			for _, powerCut := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %v, power cut %t", op, fault, powerCut), func(t *testing.T) {
					steps := 0
					for putOnce(t, op, steps+1, fault, powerCut) {
						steps++
					}
					if steps < 10 {
						t.Errorf("only %d steps were broken", steps)
					}
				})
			}
		}
	}
}

// putOnce puts a blob with a fault at step, and reports whether there was such a step.
func putOnce(t *testing.T, op string, step int, fault durabletest.Fault, powerCut bool) bool {
	t.Helper()
	const key = "v1/ns/key"
	root := filepath.Join(t.TempDir(), "blobs")
	var old []byte
	if op == "replace" {
		old = []byte("old")
		create(t, newDir(t, root), key, string(old))
	}
	fsys := durabletest.New(t.TempDir(), step, fault)
	d, err := blob.NewDirOn(root, fsys)
	fresh := blobtest.Content(100_000, 1)
	if err == nil {
		put := d.Create
		if op == "replace" {
			put = d.Replace
		}
		err = put(t.Context(), key, bytes.NewReader(fresh), int64(len(fresh)))
		if fault == durabletest.NoSpace && err != nil && !errors.Is(err, blob.ErrNoSpace) {
			t.Errorf("step %d: error is %v", step, err)
		}
	}
	if powerCut && (fsys.Crashed() || err == nil) {
		if err := fsys.PowerCut(); err != nil {
			t.Fatal(err)
		}
	} else if err := fsys.Close(); err != nil {
		t.Fatal(err)
	}
	d = newDir(t, root)
	got, readErr := blobtest.Read(t.Context(), d, key, 0, -1)
	switch {
	case err == nil && !bytes.Equal(got, fresh):
		t.Errorf("step %d: %d bytes, %v, after success", step, len(got), readErr)
	case old == nil && errors.Is(readErr, blob.ErrNotFound), old != nil && bytes.Equal(got, old):
	case readErr != nil || !bytes.Equal(got, fresh):
		t.Errorf("step %d: a part of a blob: %d bytes, %v", step, len(got), readErr)
	}
	// Whatever is left does not hinder the next.
	if err := d.Replace(t.Context(), key, strings.NewReader("next"), 4); err != nil {
		t.Errorf("step %d: the next: %v", step, err)
	}
	if keys, err := blobtest.Keys(t.Context(), d, ""); err != nil || !slices.Equal(keys, []string{key}) {
		t.Errorf("step %d: listed are %q, %v", step, keys, err)
	}
	return fsys.Reached()
}

func TestWhatExistsIsDurableBeforeItIsSaidToExist(t *testing.T) {
	root := filepath.Join(t.TempDir(), "blobs")
	fsys := durabletest.New(t.TempDir(), 0, 0)
	d, err := blob.NewDirOn(root, fsys)
	if err != nil {
		t.Fatal(err)
	}
	create(t, d, "a/key", "content")
	// Another one has put this, and was killed between its name and the sync of it.
	if err := fsys.Link(filepath.Join(root, "a/key"), filepath.Join(root, "a/other")); err != nil {
		t.Fatal(err)
	}
	if err := d.Create(t.Context(), "a/other", strings.NewReader("content"), 7); !errors.Is(err, blob.ErrExists) {
		t.Errorf("error is %v", err)
	}
	if err := fsys.PowerCut(); err != nil {
		t.Fatal(err)
	}
	if size, err := d.Size(t.Context(), "a/other"); size != 7 || err != nil {
		t.Errorf("after a power cut it has %d bytes, %v", size, err)
	}
}

func TestTwoProcessesShareAFolder(t *testing.T) {
	root := t.TempDir()
	dirs := []*blob.Dir{newDir(t, root), newDir(t, root)}
	for round := range 20 {
		key := fmt.Sprintf("race/%d", round)
		var won atomic.Int32
		var wg sync.WaitGroup
		for _, d := range dirs {
			wg.Go(func() {
				switch err := d.Create(t.Context(), key, strings.NewReader("x"), 1); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, blob.ErrExists):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("round %d: %d created the blob", round, won.Load())
		}
	}
	entries, err := os.ReadDir(filepath.Join(root, ".tmp"))
	if err != nil || len(entries) != 0 {
		t.Errorf("%d temporary files are left, %v", len(entries), err)
	}
}

func TestNoLinkIsFollowed(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	d := newDir(t, root)
	create(t, d, "real/key", "inside")
	if err := os.WriteFile(filepath.Join(outside, "key"), []byte("outside"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"file": filepath.Join(outside, "key"), "folder": outside, "within": "real", "up": "..", "real/deep": outside, "dangling": filepath.Join(outside, "none"),
	} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"file", "folder/key", "within/key", "up/key", "real/deep/key", "dangling"} {
		_, err := d.Size(t.Context(), key)
		wantDenied(t, "size", key, err)
		_, err = d.Open(t.Context(), key, 0, -1)
		wantDenied(t, "open", key, err)
	}
	for _, key := range []string{"folder/key", "folder/new", "folder/a/b", "within/new", "up/new", "real/deep/new"} {
		wantDenied(t, "create", key, d.Create(t.Context(), key, strings.NewReader("x"), 1))
		wantDenied(t, "replace", key, d.Replace(t.Context(), key, strings.NewReader("x"), 1))
		wantDenied(t, "delete", key, d.Delete(t.Context(), key))
	}
	for _, key := range []string{"file", "dangling"} {
		if err := d.Create(t.Context(), key, strings.NewReader("x"), 1); !errors.Is(err, blob.ErrExists) {
			t.Errorf("create %s: error is %v", key, err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(outside, "key")); err != nil || string(got) != "outside" {
		t.Errorf("what is outside is %q, %v", got, err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("outside are %v, %v", entries, err)
	}
	if keys, err := blobtest.Keys(t.Context(), d, ""); err != nil || !slices.Equal(keys, []string{"real/key"}) {
		t.Errorf("listed are %q, %v", keys, err)
	}
}

func wantDenied(t *testing.T, op, key string, err error) {
	t.Helper()
	if !errors.Is(err, blob.ErrDenied) {
		t.Errorf("%s %s: error is %v", op, key, err)
	}
}

func TestWhatIsNoBlobIsNotFound(t *testing.T) {
	root := t.TempDir()
	d := newDir(t, root)
	create(t, d, "a/key", "x")
	if err := unix.Mkfifo(filepath.Join(root, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bad name", ".hidden"} {
		if err := os.WriteFile(filepath.Join(root, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"fifo", "a"} {
		if _, err := d.Open(t.Context(), key, 0, -1); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("%s: error is %v", key, err)
		}
	}
	if keys, err := blobtest.Keys(t.Context(), d, ""); err != nil || !slices.Equal(keys, []string{"a/key"}) {
		t.Errorf("listed are %q, %v", keys, err)
	}
}

func TestNoBlobLiesBelowAnother(t *testing.T) {
	d := newDir(t, t.TempDir())
	create(t, d, "a/b", "x")
	for _, key := range []string{"a/b/c", "a/b/c/d", "a"} {
		if err := d.Create(t.Context(), key, strings.NewReader("x"), 1); !errors.Is(err, blob.ErrKey) {
			t.Errorf("create %s: error is %v", key, err)
		}
		if err := d.Replace(t.Context(), key, strings.NewReader("x"), 1); !errors.Is(err, blob.ErrKey) {
			t.Errorf("replace %s: error is %v", key, err)
		}
	}
}

func TestAFolderThatIsGoneIsNotAMissingBlob(t *testing.T) {
	root := filepath.Join(t.TempDir(), "blobs")
	d := newDir(t, root)
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	_, err := d.Size(t.Context(), "key")
	_, listErr := blobtest.Keys(t.Context(), d, "")
	for _, err := range []error{err, listErr, d.Create(t.Context(), "key", strings.NewReader("x"), 1)} {
		if err == nil || errors.Is(err, blob.ErrNotFound) {
			t.Errorf("error is %v", err)
		}
	}
}

func TestAFolderThatCanOnlyBeReadIsRead(t *testing.T) {
	root := filepath.Join(t.TempDir(), "blobs")
	create(t, newDir(t, root), "key", "content")
	if err := os.Remove(filepath.Join(root, ".tmp")); err != nil {
		t.Fatal(err)
	}
	d, err := blob.NewDirOn(root, readOnly{durable.Disk})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := blobtest.Read(t.Context(), d, "key", 0, -1); err != nil || string(got) != "content" {
		t.Errorf("read %q, %v", got, err)
	}
	wantDenied(t, "create", "other", d.Create(t.Context(), "other", strings.NewReader("x"), 1))
	wantDenied(t, "replace", "key", d.Replace(t.Context(), "key", strings.NewReader("x"), 1))
	wantDenied(t, "delete", "key", d.Delete(t.Context(), "key"))
}

// readOnly is a file system that cannot be written to.
type readOnly struct{ durable.FS }

func (readOnly) Mkdir(name string) error {
	return &os.PathError{Op: "mkdir", Path: name, Err: unix.EROFS}
}

func (readOnly) Remove(name string) error {
	return &os.PathError{Op: "remove", Path: name, Err: unix.EROFS}
}

func TestWhatDeadWritersLeftIsRemoved(t *testing.T) {
	root := t.TempDir()
	newDir(t, root)
	now := time.Now()
	for name, age := range map[string]time.Duration{"old": 25 * time.Hour, "young": 23 * time.Hour} {
		path := filepath.Join(root, ".tmp", name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	newDir(t, root)
	var left []string
	entries, err := os.ReadDir(filepath.Join(root, ".tmp"))
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if diff := cmp.Diff([]string{"young"}, left); err != nil || diff != "" {
		t.Errorf("left (-want +got), %v:\n%s", err, diff)
	}
}

func TestAFileThatShrinksWhileItIsReadEndsWithAnError(t *testing.T) {
	root := t.TempDir()
	d := newDir(t, root)
	create(t, d, "key", "0123456789")
	body, err := d.Open(t.Context(), "key", 2, 8)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(root, "key"), 5); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(body)
	if string(got) != "234" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read %q, %v", got, err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
}
