package instance

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"thaw/internal/testenv"
)

// nullDevice is one that every host has, and lets test programs make.
func nullDevice(t *testing.T) device {
	t.Helper()
	testenv.NeedRoot(t)
	d, err := findDevice("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// makeBelow makes a device below a folder that stands for a container's root.
func makeBelow(t *testing.T, d device, dir string) error {
	t.Helper()
	root, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	return d.makeBelow(root)
}

func TestADeviceIsMadeWithItsModeAndMadeAgainAsItIs(t *testing.T) {
	d, dir := nullDevice(t), t.TempDir()
	defer unix.Umask(unix.Umask(0o077))
	for range 2 {
		if err := makeBelow(t, d, dir); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, "dev/null"), &st); err != nil {
			t.Fatal(err)
		}
		if st.Rdev != d.rdev || st.Mode != d.mode {
			t.Errorf("device %#x of mode %#o, want %#x of %#o", st.Rdev, st.Mode, d.rdev, d.mode)
		}
	}
}

func TestWhatAContainerPutsInADevicesPlaceIsNotFollowed(t *testing.T) {
	d := nullDevice(t)
	secret := filepath.Join(t.TempDir(), "shadow")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	put := map[string]func(path string) error{
		"a link to a file of the host's": func(path string) error { return os.Symlink(secret, path) },
		"a link to a device":             func(path string) error { return os.Symlink("/dev/zero", path) },
		"a file":                         func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"a folder":                       func(path string) error { return os.Mkdir(path, 0o700) },
		"another device":                 func(path string) error { return unix.Mknod(path, d.mode, int(unix.Mkdev(1, 5))) },
	}
	for what, put := range put {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			if err := errors.Join(os.Mkdir(filepath.Join(dir, "dev"), 0o755), put(filepath.Join(dir, "dev/null"))); err != nil {
				t.Fatal(err)
			}
			if err := makeBelow(t, d, dir); !errors.Is(err, ErrNoDevice) {
				t.Errorf("made over %s: %v, want %v", what, err, ErrNoDevice)
			}
			if info, err := os.Stat(secret); err != nil || info.Mode() != 0o600 {
				t.Errorf("the host's file has mode %v (%v), want 0600", info.Mode(), err)
			}
		})
	}
	t.Run("a link in the place of /dev", func(t *testing.T) {
		dir, elsewhere := t.TempDir(), t.TempDir()
		if err := os.Symlink(elsewhere, filepath.Join(dir, "dev")); err != nil {
			t.Fatal(err)
		}
		if err := makeBelow(t, d, dir); err == nil {
			t.Error("made through a link")
		}
		if left, err := os.ReadDir(elsewhere); err != nil || len(left) > 0 {
			t.Errorf("the folder behind the link holds %v (%v)", left, err)
		}
	})
}
