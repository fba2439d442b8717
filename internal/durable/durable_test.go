package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/internal/durable"
	"thaw/internal/durable/durabletest"
	"thaw/internal/testenv"
)

func TestReplaceLeavesOldOrNewContentWhateverFails(t *testing.T) {
	for _, fault := range durabletest.Faults {
		for _, powerCut := range []bool{false, true} {
			t.Run(fault.String(), func(t *testing.T) {
				for step := 1; replaceOnce(t, step, fault, powerCut); step++ {
				}
			})
		}
	}
}

// replaceOnce replaces "old" by "new" with a fault at step, and reports whether there was such a step.
func replaceOnce(t *testing.T, step int, fault durabletest.Fault, powerCut bool) bool {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	fsys := durabletest.New(t.TempDir(), step, fault)
	err := durable.Replace(fsys, name, []byte("new"))
	if fsys.Crashed() && powerCut {
		if err := fsys.PowerCut(); err != nil {
			t.Fatal(err)
		}
	} else if err := fsys.Close(); err != nil {
		t.Fatal(err)
	}
	got, readErr := os.ReadFile(name)
	if readErr != nil {
		t.Fatalf("step %d: %v", step, readErr)
	}
	switch {
	case err == nil && string(got) != "new":
		t.Errorf("step %d: content is %q after success", step, got)
	case string(got) != "old" && string(got) != "new":
		t.Errorf("step %d: content is %q", step, got)
	}
	if err := durable.Replace(durable.Disk, name, []byte("newer")); err != nil {
		t.Errorf("step %d: the next Replace: %v", step, err)
	}
	return fsys.Reached()
}

func TestWriteRefusesANameThatExists(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := durable.Write(durable.Disk, name, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := durable.Write(durable.Disk, name, []byte("two")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("error is %v, want %v", err, fs.ErrExist)
	}
}

// syncRecorder notes what is synced.
type syncRecorder struct {
	durable.FS
	root   string
	synced []string
}

func (r *syncRecorder) SyncFile(name string) error {
	rel, _ := filepath.Rel(r.root, name)
	r.synced = append(r.synced, rel)
	return r.FS.SyncFile(name)
}

func (r *syncRecorder) SyncDir(name string) error {
	rel, _ := filepath.Rel(r.root, name)
	r.synced = append(r.synced, rel+"/")
	return r.FS.SyncDir(name)
}

func TestSyncTreeSyncsContentBeforeNames(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "a/two", "a/b/three"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	recorder := &syncRecorder{FS: durable.Disk, root: dir}
	err := durable.SyncTree(recorder, dir, func(path string, info fs.FileInfo) error {
		rel, err := filepath.Rel(dir, path)
		got = append(got, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a/b/three", "a/two", "one"}, got); diff != "" {
		t.Errorf("visited files (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a/b/three", "a/b/", "a/two", "a/", "one", "./"}, recorder.synced); diff != "" {
		t.Errorf("synced (-want +got):\n%s", diff)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := durable.SyncTree(durable.Disk, dir, nil); err == nil {
		t.Error("a symbolic link was accepted")
	}
}

func TestRemoveAllFollowsNoLink(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"a", "sub/b"} {
		if err := os.Symlink(filepath.Dir(outside), filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.RemoveAll(durable.Disk, dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("the file behind the link: %v", err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	if err := durable.RemoveAll(durable.Disk, dir); err != nil {
		t.Errorf("removing nothing: %v", err)
	}
}

func TestRemoveAllStopsAtAMount(t *testing.T) {
	testenv.NeedRoot(t)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "dir")
	mount := filepath.Join(dir, "sub", "mount")
	if err := os.MkdirAll(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(outside, mount, "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("cannot bind mount: %v; run as root with CAP_SYS_ADMIN", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mount, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	if err := durable.RemoveAll(durable.Disk, dir); !errors.Is(err, durable.ErrMountPoint) {
		t.Errorf("error is %v, want %v", err, durable.ErrMountPoint)
	}
	if _, err := os.Stat(filepath.Join(outside, "precious")); err != nil {
		t.Errorf("the file behind the mount: %v", err)
	}
}

func TestWritebackOfARealFile(t *testing.T) {
	f, err := durable.Disk.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Writeback(0, 1<<20), f.Sync(), f.Close()); err != nil {
		t.Error(err)
	}
	if err := f.Writeback(0, 1); err == nil {
		t.Error("writeback of a closed file was accepted")
	}
}

func TestWhatIsReservedAndNotUsedIsGivenBack(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	f, err := durable.Disk.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Reserve(0, 1<<20); errors.Is(err, syscall.EOPNOTSUPP) {
		t.Skip("the file system of the temporary folder cannot reserve space; set TMPDIR to one that can")
	} else if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 8<<10)
	if _, err := f.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	size, before := onDisk(t, name)
	if err := errors.Join(f.Truncate(int64(len(data))), f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if _, after := onDisk(t, name); size != int64(len(data)) || before < 1<<20 || after >= 1<<20 {
		t.Errorf("the file has %d bytes, %d on the disk with the reserve and %d without", size, before, after)
	}
	if err := f.Reserve(0, 1); err == nil {
		t.Error("space for a closed file was reserved")
	}
}

// onDisk returns the size of a file and what it takes.
func onDisk(t *testing.T, name string) (size, allocated int64) {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Size, st.Blocks * 512
}

func TestNoSpaceKnowsDiskAndQuota(t *testing.T) {
	for err, want := range map[error]bool{
		syscall.ENOSPC: true,
		syscall.EDQUOT: true,
		syscall.EIO:    false,
		&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}: true,
	} {
		if got := durable.NoSpace(err); got != want {
			t.Errorf("NoSpace(%v) is %v", err, got)
		}
	}
}
