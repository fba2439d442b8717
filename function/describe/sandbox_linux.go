package describe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// sandboxed returns this program, as the first process of new namespaces.
func sandboxed(ctx context.Context, config string) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", Command, config)
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  unix.SIGKILL,
		Setsid:     true,
	}
	return cmd, nil
}

// Main is the rest of the program when its first argument is [Command]; args are those after it. It makes the sandbox around itself and
// becomes the Python that describes the app. It returns an exit code if that fails.
func Main(args []string) int {
	err := errors.New("it is no command for users")
	if len(args) == 1 {
		err = enter(args[0])
	}
	fmt.Fprintf(os.Stderr, "%v: %v\n", ErrSandbox, err)
	return 1
}

func enter(text string) error {
	var c config
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	if os.Getpid() != 1 {
		return errors.New("this is no new namespace") // and what follows would change the host
	}
	runtime.LockOSThread() // capabilities are the thread's
	root, err := c.build()
	if err != nil {
		return err
	}
	if err := changeRoot(root); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("thaw")); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := dropPrivileges(); err != nil {
		return err
	}
	// Descriptors of folders outside, which whoever started the program left open, would lead out.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	path, err := lookPath(c.Command[0])
	if err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", path, unix.Exec(path, c.Command, c.Environment))
}

// build mounts what the code is to see, in c.Dir, and returns where.
func (c *config) build() (root string, err error) {
	m := new(mounter)
	m.mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	m.mount("tmpfs", c.Dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=16m")
	top := filepath.Join(c.Dir, "top")
	root = filepath.Join(c.Dir, "root")
	for _, dir := range []string{AppDir, SDKDir, "/proc", "/sys", "/dev", "/tmp", "/run"} {
		m.mkdir(filepath.Join(top, dir))
	}
	m.mkdir(root)
	// An overlay without an upper folder is read-only. Its topmost folder has the places to mount upon, whatever the root lacks.
	lowers := []string{top}
	for _, l := range c.Lowers {
		lowers = append(lowers, escapeLower.Replace(l))
	}
	m.mount("overlay", root, "overlay", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "lowerdir="+strings.Join(lowers, ":"))
	m.bindReadOnly(c.App, root+AppDir)
	m.bindReadOnly(c.SDK, root+SDKDir)
	// Without capabilities root still owns the files in /proc and /sys that change the kernel: so nobody writes there.
	m.mount("proc", root+"/proc", "proc", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	m.mount("sysfs", root+"/sys", "sysfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	m.mount("tmpfs", root+"/tmp", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,size=1g")
	m.mount("tmpfs", root+"/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=16m")
	m.devices(root + "/dev")
	return root, m.err
}

// escapeLower keeps the kernel from splitting the name of a folder at colons and commas.
var escapeLower = strings.NewReplacer(`\`, `\\`, `,`, `\,`, `:`, `\:`)

// mounter mounts until something fails.
type mounter struct{ err error }

func (m *mounter) mkdir(path string) {
	if m.err == nil {
		m.err = os.MkdirAll(path, 0o755)
	}
}

func (m *mounter) mount(source, target, fstype string, flags uintptr, data string) {
	if m.err != nil {
		return
	}
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		m.err = fmt.Errorf("mount %s on %s: %w", fstype, target, err)
	}
}

// bindReadOnly shows the folder, and what is mounted below it, at target.
func (m *mounter) bindReadOnly(source, target string) {
	m.mount(source, target, "", unix.MS_BIND|unix.MS_REC, "")
	if m.err != nil {
		return
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(unix.AT_FDCWD, target, unix.AT_RECURSIVE, &attr); err != nil {
		m.err = fmt.Errorf("make %s read-only: %w", target, err)
	}
}

// devices makes a /dev with what every program may use.
func (m *mounter) devices(dir string) {
	m.mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755,size=1m")
	for _, name := range []string{"null", "zero", "full", "random", "urandom"} {
		path := filepath.Join(dir, name)
		if m.err == nil {
			m.err = os.WriteFile(path, nil, 0o600)
		}
		m.mount("/dev/"+name, path, "", unix.MS_BIND, "")
	}
	for name, to := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		if m.err == nil {
			m.err = os.Symlink(to, filepath.Join(dir, name))
		}
	}
	m.mkdir(filepath.Join(dir, "shm"))
	m.mount("tmpfs", filepath.Join(dir, "shm"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,size=1g")
}

// changeRoot makes root the root, and takes all else away.
func changeRoot(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	// The old root comes to lie above the new one, and is what "." is then: pivot_root(2).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the host: %w", err)
	}
	return os.Chdir(AppDir)
}

// dropPrivileges leaves this thread, and what it executes, without capabilities for good.
func dropPrivileges() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("setrlimit: %w", err)
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) { // an older kernel has fewer
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop ambient capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return nil
}

// lookPath finds the program where instances find it, whatever the PATH of the host is.
func lookPath(name string) (string, error) {
	for _, dir := range []string{"/usr/local/bin", "/usr/bin", "/bin"} {
		path := filepath.Join(dir, name)
		if unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no %s in the root file system", name)
}
