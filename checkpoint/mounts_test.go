package checkpoint

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"thaw/internal/testenv"
)

const mountinfo = `27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 master:1 - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
50 27 254:0 /rootfs /run/a\040b/criu-root rw,relatime - ext4 /dev/vda rw
51 50 0:40 / /run/a\040b/criu-root/proc rw - proc proc rw
52 27 0:41 / /run/a\040bc rw - tmpfs tmpfs rw
`

func TestMountsAreParsed(t *testing.T) {
	all, err := parseMounts(strings.NewReader(mountinfo))
	if err != nil {
		t.Fatal(err)
	}
	want := []mount{
		{"/", "ext4", "rw,discard"},
		{"/sys/fs/cgroup", "tmpfs", "rw,mode=755"},
		{"/sys/fs/cgroup/memory", "cgroup", "rw,memory"},
		{"/run/a b/criu-root", "ext4", "rw"},
		{"/run/a b/criu-root/proc", "proc", "rw"},
		{"/run/a bc", "tmpfs", "rw"},
	}
	if diff := cmp.Diff(want, all, cmp.AllowUnexported(mount{})); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}

	// The inner mount comes first, and a folder whose name only begins the same is another folder.
	points := pointsBelow(all, "/run/a b")
	if diff := cmp.Diff([]string{"/run/a b/criu-root/proc", "/run/a b/criu-root"}, points); diff != "" {
		t.Errorf("mount points below (-want +got):\n%s", diff)
	}
}

func TestMountinfoOfAnotherFormatIsRefused(t *testing.T) {
	for _, line := range []string{"", "27 1 254:0 / / rw", "27 1 254:0 / / rw - ext4", "a - b c d"} {
		if all, err := parseMounts(strings.NewReader(line + "\n")); err == nil {
			t.Errorf("line %q gave %v", line, all)
		}
	}
}

func TestRemoveAllDoesNotFollowAMount(t *testing.T) {
	testenv.NeedRoot(t)
	dir := tempDir(t)
	precious := filepath.Join(dir, "precious", "file")
	point := filepath.Join(dir, "state", "criu-root")
	for _, d := range []string{filepath.Dir(precious), point} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(precious, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A bind of the same file system: its device number does not give it away.
	if err := unix.Mount(filepath.Dir(precious), point, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "state")
	if err := RemoveAll(state); !errors.Is(err, unix.EXDEV) {
		t.Errorf("remove across a mount: %v, want %v", err, unix.EXDEV)
	}
	if data, err := os.ReadFile(precious); string(data) != "keep" {
		t.Fatalf("the file behind the mount is gone: %q, %v", data, err)
	}
	if err := UnmountBelow(state); err != nil {
		t.Fatal(err)
	}
	if err := RemoveAll(state); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(state); err == nil {
		t.Error("the folder is still there")
	}
	if _, err := os.Lstat(precious); err != nil {
		t.Error(err)
	}
}

func TestRemoveAllRemovesLinksAndNotWhatTheyNameAndWhatIsNotThereIsFine(t *testing.T) {
	dir := t.TempDir()
	kept := filepath.Join(dir, "kept")
	gone := filepath.Join(dir, "gone")
	for _, d := range []string{kept, filepath.Join(gone, "a", "b")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(kept, filepath.Join(gone, "a", "link")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := RemoveAll(gone); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(gone); err == nil {
		t.Error("the folder is still there")
	}
	if _, err := os.Lstat(kept); err != nil {
		t.Error(err)
	}
	if err := RemoveAll(filepath.Join(dir, "never", "was")); err != nil {
		t.Errorf("a folder in a folder that is not there: %v", err)
	}
}
