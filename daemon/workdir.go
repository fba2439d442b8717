package daemon

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"thaw/restore/criu"
)

// A workDir is the folder that a session shares with its runtime: lazy-pages.socket, logs, pid files.
type workDir struct {
	path string
	ours bool // made by us, and ours to remove
}

// makeWorkDir makes a folder for session id below runDir.
func makeWorkDir(runDir, id string) (workDir, error) {
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		return workDir{}, fmt.Errorf("make folder for work folders: %w", err)
	}
	path := filepath.Join(runDir, id)
	if err := os.Mkdir(path, 0o700); err != nil {
		return workDir{}, fmt.Errorf("make work folder: %w", err)
	}
	return workDir{path: path, ours: true}, nil
}

// givenWorkDir uses a folder that the client names; it stays when the session ends.
func givenWorkDir(path string) (workDir, error) {
	info, err := os.Stat(path)
	if err != nil {
		return workDir{}, fmt.Errorf("work folder: %w", err)
	}
	if !info.IsDir() {
		return workDir{}, fmt.Errorf("work folder %s: %w", path, unix.ENOTDIR)
	}
	return workDir{path: filepath.Clean(path)}, nil
}

func (w workDir) socket() string { return filepath.Join(w.path, criu.SocketName) }

// errMounted says that something is mounted in a folder that should be removed.
var errMounted = errors.New("something is mounted in it")

// remove removes the folder if we made it. A restore that failed may have left mounts in it, as of the root file
// system or of cgroups; deleting across such a mount would delete what is mounted there, so a folder with mounts stays.
func (w workDir) remove() error {
	if !w.ours {
		return nil
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("remove work folder: %w", err)
	}
	path, err := filepath.EvalSymlinks(w.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove work folder: %w", err)
	}
	if mount, ok := mountBelow(mounts, path); ok {
		return fmt.Errorf("remove work folder %s: %w: %s", path, errMounted, mount)
	}
	return os.RemoveAll(path)
}

// mountBelow finds a mount point at or below dir in the text of a mountinfo file (proc_pid_mountinfo(5)).
func mountBelow(mountinfo []byte, dir string) (string, bool) {
	lines := bufio.NewScanner(bytes.NewReader(mountinfo))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		const mountPoint = 4
		if len(fields) <= mountPoint {
			continue
		}
		at := unescapeMount(fields[mountPoint])
		if at == dir || strings.HasPrefix(at, dir+"/") {
			return at, true
		}
	}
	return "", false
}

// unescapeMount undoes the kernel's escapes of space, tab, newline and backslash: \ and three octal digits.
func unescapeMount(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
