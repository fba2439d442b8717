package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"thaw/internal/testenv"
)

const mountinfo = `22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:21 / /proc rw - proc proc rw
40 22 0:30 / /run/thaw/sessions/abc/.criu.cgyard.x rw - tmpfs none rw
41 22 0:31 / /run/thaw/with\040space/a\134b rw - tmpfs none rw
short line
`

func TestMountsAreFoundAtAndBelowAFolder(t *testing.T) {
	for dir, want := range map[string]string{
		"/run/thaw/sessions/abc":                "/run/thaw/sessions/abc/.criu.cgyard.x",
		"/run/thaw/sessions":                    "/run/thaw/sessions/abc/.criu.cgyard.x",
		"/run/thaw/sessions/abc/.criu.cgyard.x": "/run/thaw/sessions/abc/.criu.cgyard.x",
		"/run/thaw/sessions/ab":                 "",
		"/run/thaw/with space":                  `/run/thaw/with space/a\b`,
		"/home":                                 "",
	} {
		if got, found := mountBelow([]byte(mountinfo), dir); got != want || found != (want != "") {
			t.Errorf("mountBelow(%q) = %q, %v; want %q", dir, got, found, want)
		}
	}
}

func TestAWorkFolderWithAMountStays(t *testing.T) {
	testenv.NeedRoot(t)
	w, err := makeWorkDir(t.TempDir(), "id")
	if err != nil {
		t.Fatal(err)
	}
	inside := filepath.Join(w.path, "mounted")
	if err := os.Mkdir(inside, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", inside, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("needs to mount a tmpfs: run where CAP_SYS_ADMIN is granted: %v", err)
	}
	mounted := true
	t.Cleanup(func() {
		if mounted {
			unix.Unmount(inside, 0)
		}
	})
	file := filepath.Join(inside, "file")
	if err := os.WriteFile(file, []byte("keep me"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.remove(); !errors.Is(err, errMounted) {
		t.Errorf("remove: %v, want errMounted", err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the file in the mount: %v", err)
	}
	if err := unix.Unmount(inside, 0); err != nil {
		t.Fatal(err)
	}
	mounted = false
	if err := w.remove(); err != nil {
		t.Errorf("remove without the mount: %v", err)
	}
	if err := w.remove(); err != nil {
		t.Errorf("remove of what is gone: %v", err)
	}
}
