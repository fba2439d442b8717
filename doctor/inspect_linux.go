package doctor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"thaw/checkpoint"
	"thaw/restore/tracer"
	"thaw/uffd"
)

// Options say where to look.
type Options struct {
	// Tools are the CRIU and the runc to look at, by default those in PATH.
	Tools checkpoint.Tools
	// StoreDir is the folder of the page store, RunDir the one for work folders and sockets; empty ones are left out. They
	// need not be there yet.
	StoreDir, RunDir string
}

// Inspect looks at this host, with the rights of this process. It opens a userfaultfd, loads a BPF program that
// sees nothing, runs CRIU and runc, and changes nothing. What cannot be found out is in the Host as lacking; only the end of ctx is an error.
func Inspect(ctx context.Context, opts *Options) (*Host, error) {
	if opts == nil {
		opts = &Options{}
	}
	h := &Host{
		Arch:        runtime.GOARCH,
		Kernel:      kernelRelease(),
		Userfaultfd: inspectUserfaultfd(),
		Tracing:     inspectTracing(),
		Cgroups:     inspectCgroups(),
		Permissions: inspectPermissions(),
		RunIsTmpfs:  isTmpfs("/run"),
		Helpers:     make(map[string]string),
	}
	h.CRIU, h.CRIUCheck = inspectCRIU(ctx, &opts.Tools)
	h.Runc = inspectTool(opts.Tools.Runc, "runc", func() (string, error) { return opts.Tools.RuncVersion(ctx) })
	for _, helper := range helperUses {
		h.Helpers[helper.name], _ = exec.LookPath(helper.name)
	}
	for _, disk := range []Disk{{Use: "page store", Path: opts.StoreDir}, {Use: "work folders", Path: opts.RunDir}} {
		if disk.Path != "" {
			h.Disks = append(h.Disks, inspectDisk(disk))
		}
	}
	return h, ctx.Err()
}

func kernelRelease() string {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return ""
	}
	return unix.ByteSliceToString(uts.Release[:])
}

func inspectUserfaultfd() Userfaultfd {
	info, err := uffd.Probe()
	return Userfaultfd{
		Err:        message(err),
		Features:   info.Features,
		SyscallErr: message(info.SyscallErr),
		DeviceErr:  message(info.DeviceErr),
		ForkErr:    message(info.ForkErr),
	}
}

func inspectTracing() Tracing {
	info, err := tracer.Probe()
	t := Tracing{Err: message(err), Permission: errors.Is(err, tracer.ErrNotPermitted), Point: info.Point}
	for _, r := range info.Refused {
		t.Refused = append(t.Refused, r.String())
	}
	return t
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// inspectTool finds a program and asks for its version.
func inspectTool(path, name string, version func() (string, error)) Tool {
	if path == "" {
		path = name
	}
	found, err := exec.LookPath(path)
	if err != nil {
		return Tool{Err: err.Error()}
	}
	v, err := version()
	return Tool{Path: found, Version: v, Err: message(err)}
}

// inspectCRIU finds CRIU and, as root, lets it check the kernel. complaint is empty if it is content or was not asked.
func inspectCRIU(ctx context.Context, tools *checkpoint.Tools) (tool Tool, complaint string) {
	tool = inspectTool(tools.CRIU, "criu", func() (string, error) { return tools.CRIUVersion(ctx) })
	if tool.Path == "" || tool.Err != "" || os.Geteuid() != 0 {
		return tool, ""
	}
	out, err := exec.CommandContext(ctx, tool.Path, "check").CombinedOutput()
	if err == nil {
		return tool, ""
	}
	// The last line is the verdict, the lines before it the reasons; the first reason says most.
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" {
			return tool, line
		}
	}
	return tool, err.Error()
}

func inspectCgroups() Cgroups {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return Cgroups{}
	}
	defer f.Close()
	var c Cgroups
	c.Writable = true
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 {
			continue
		}
		switch point := fields[1]; fields[2] {
		case "cgroup":
			c.V1 = append(c.V1, point)
			c.Writable = c.Writable && writable(point)
		case "cgroup2":
			c.V2 = point
			c.Writable = c.Writable && writable(point)
		}
	}
	return c
}

// writable reports whether this process may make something in a folder: mounted for writing, and with the rights.
func writable(dir string) bool { return unix.Access(dir, unix.W_OK) == nil }

// inspectedCapabilities are the capabilities that Examine asks for, by number (capability.h).
var inspectedCapabilities = []struct {
	bit  uint
	name string
}{
	{unix.CAP_SYS_PTRACE, "CAP_SYS_PTRACE"},
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"},
	{unix.CAP_SYS_RESOURCE, "CAP_SYS_RESOURCE"},
	{unix.CAP_CHECKPOINT_RESTORE, "CAP_CHECKPOINT_RESTORE"},
}

func inspectPermissions() Permissions {
	p := Permissions{UID: os.Geteuid(), Capabilities: []string{}}
	effective := effectiveCapabilities()
	for _, c := range inspectedCapabilities {
		if effective&(1<<c.bit) != 0 {
			p.Capabilities = append(p.Capabilities, c.name)
		}
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil {
		p.OpenFiles = limit.Max
	}
	return p
}

// effectiveCapabilities returns the set as the kernel prints it, 0 if it cannot be read.
func effectiveCapabilities() uint64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, _ := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			return set
		}
	}
	return 0
}

func isTmpfs(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.TMPFS_MAGIC
}

// inspectDisk asks for the free space of the folder, or of the nearest one above it that is there.
func inspectDisk(d Disk) Disk {
	path, err := filepath.Abs(d.Path)
	if err != nil {
		d.Err = err.Error()
		return d
	}
	var st unix.Statfs_t
	err = unix.Statfs(path, &st)
	for errors.Is(err, fs.ErrNotExist) && path != "/" {
		path = filepath.Dir(path)
		err = unix.Statfs(path, &st)
	}
	if err != nil {
		d.Err = fmt.Sprintf("statfs %s: %v", path, err)
		return d
	}
	d.Free = st.Bavail * uint64(st.Bsize)
	return d
}
