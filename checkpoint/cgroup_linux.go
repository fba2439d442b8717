package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupDirs returns the folders of the cgroup path in all hierarchies that are mounted: one with cgroup v2, one for each
// group of controllers with v1. Folders that do not exist are left out. An empty path has none.
func cgroupDirs(path string) ([]string, error) {
	if path == "" || path == "/" {
		return nil, nil
	}
	all, err := mounts()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, m := range all {
		if m.fsType != "cgroup" && m.fsType != "cgroup2" {
			continue
		}
		dir := filepath.Join(m.point, path)
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}

// cgroupPIDs returns the processes in the given cgroup folders and in those below them.
func cgroupPIDs(dirs []string) ([]int, error) {
	seen := make(map[int]bool)
	var pids []int
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || entry.Name() != "cgroup.procs" {
				return err
			}
			data, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
				return nil
			}
			for _, field := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 0 && !seen[pid] {
					seen[pid] = true
					pids = append(pids, pid)
				}
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read processes of cgroup %s: %w", dir, err)
		}
	}
	return pids, nil
}

// killTimeout bounds the wait for a killed process. Its end may take a while where it has gigabytes to give back.
const killTimeout = 30 * time.Second

// killCgroup kills all processes in the given cgroup folders and waits for their end.
func killCgroup(dirs []string) error {
	pids, err := cgroupPIDs(dirs)
	if err != nil {
		return err
	}
	held := make(map[int]*Process)
	defer func() {
		for _, p := range held {
			p.Close()
		}
	}()
	for _, pid := range pids {
		p, err := openProcess(pid)
		if errors.Is(err, os.ErrProcessDone) {
			continue
		}
		if err != nil {
			return err
		}
		held[pid] = p
	}
	// A number may have passed to another process before it was held. What is in the cgroup now and is held is meant.
	if pids, err = cgroupPIDs(dirs); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	var errs []error
	for _, pid := range pids {
		if p := held[pid]; p != nil {
			errs = append(errs, p.Kill())
		}
	}
	errs = append(errs, thawCgroup(dirs))
	for _, pid := range pids {
		if p := held[pid]; p != nil {
			errs = append(errs, p.Wait(ctx))
		}
	}
	return errors.Join(errs...)
}

// thawCgroup lets the processes of cgroups go on that are frozen, as a dump leaves them that does not come to its end. In cgroup v1 one that is
// killed does not end before.
func thawCgroup(dirs []string) error {
	var errs []error
	for _, dir := range dirs {
		// Without a file of this name it is no freezer, or v2, whose killed processes end.
		errs = append(errs, freezerV1(dir).thaw())
	}
	return errors.Join(errs...)
}

// removeCgroup removes a cgroup, whose processes have ended or are about to, from all hierarchies.
func removeCgroup(dirs []string) error {
	var errs []error
	for _, dir := range dirs {
		errs = append(errs, awaitEmpty(dir, killTimeout), removeCgroupDir(dir))
	}
	return errors.Join(errs...)
}

// awaitEmpty waits until no process holds a cgroup v2. One that ends is no longer listed in cgroup.procs, and yet keeps the cgroup until
// all is given back that it had: a second and more where its files are a GPU's. In cgroup v1, which has no such file, it is listed.
func awaitEmpty(dir string, patience time.Duration) error {
	events, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer events.Close()
	for end := time.Now().Add(patience); ; {
		populated, err := isPopulated(events)
		if err != nil || !populated {
			return err
		}
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("cgroup %s: its processes were killed, and have not ended within %v", dir, patience)
		}
		// The kernel reports a change of the file as an exceptional condition.
		fds := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, int(left.Milliseconds())+1); err != nil && err != unix.EINTR {
			return &fs.PathError{Op: "poll", Path: events.Name(), Err: err}
		}
	}
}

// isPopulated reads, in a cgroup's cgroup.events, whether the cgroup or one below it has processes. One that was removed has none.
func isPopulated(events *os.File) (bool, error) {
	var buf [256]byte // a line for each event, of which there are two
	n, err := events.ReadAt(buf[:], 0)
	if errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if err != nil && err != io.EOF {
		return false, err
	}
	return bytes.Contains(buf[:n], []byte("populated 1\n")), nil
}

// removeCgroupDir removes a cgroup folder and those below it. Its files belong to the kernel and go with it.
func removeCgroupDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeCgroupDir(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}
