package control

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListenMakesASocketThatOnlyItsOwnerCanUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "thawd.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got != fs.ModeSocket|0o600 {
		t.Errorf("mode of the socket is %v, want srw-------", got)
	}
}

func TestListenRefusesAPathWithALivingServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "thawd.sock")
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); !errors.Is(err, ErrSocketTaken) || !strings.Contains(err.Error(), path) {
		t.Errorf("second Listen: %v, want ErrSocketTaken with the path", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := Listen(path)
	if err != nil {
		t.Fatalf("Listen after the first server has closed: %v", err)
	}
	second.Close()
}

func TestListenRefusesAServerThatKnowsNothingOfTheLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "thawd.sock")
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := Listen(path); !errors.Is(err, ErrSocketTaken) {
		t.Errorf("Listen: %v, want ErrSocketTaken", err)
	}
	if conn, err := net.Dial("unix", path); err != nil {
		t.Errorf("the other server lost its socket: %v", err)
	} else {
		conn.Close()
	}
}

func TestListenReplacesTheSocketOfADeadServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "thawd.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("the dead server left no socket behind: %v", err)
	}
	l, err := Listen(path)
	if err != nil {
		t.Fatalf("Listen over a stale socket: %v", err)
	}
	l.Close()
}

func TestListenLeavesAFileThatIsNoSocketAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(path, []byte("keep me"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); !errors.Is(err, ErrNotSocket) {
		t.Errorf("Listen: %v, want ErrNotSocket", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "keep me" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}

func TestListenNamesAFolderThatIsNotThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "thawd.sock")
	if _, err := Listen(path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("Listen: %v, want not exist with the path", err)
	}
}

func TestClientTellsAMissingServerFromADeadOne(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing.sock")
	deadPath := filepath.Join(dir, "dead.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: deadPath})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	for _, path := range []string{missing, deadPath} {
		c := NewClient(path)
		_, err := c.Health(t.Context())
		var e *Error
		if !errors.As(err, &e) || e.Code != CodeUnavailable || e.Hint == "" || !strings.Contains(e.Message, path) {
			t.Errorf("Health on %s: %v, want CodeUnavailable with a hint", path, err)
		}
		c.Close()
	}
}

func TestListenNamesAPathThatIsTooLong(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("x", 108))
	if _, err := Listen(path); !errors.Is(err, ErrSocketName) {
		t.Errorf("Listen: %v, want ErrSocketName", err)
	}
}
