package doctor

import (
	"thaw/restore/tracer/trace"
	"thaw/uffd"
)

// Host is what was found on a host. The zero value is a host that has nothing.
type Host struct {
	Arch   string `json:"arch"`   // Go's name, such as "amd64"
	Kernel string `json:"kernel"` // release, such as "6.12.41+deb13-amd64"

	Userfaultfd Userfaultfd `json:"userfaultfd"`
	Tracing     Tracing     `json:"tracing"`
	CRIU        Tool        `json:"criu"`
	// CRIUCheck is what `criu check` says when it fails; empty if it is content.
	CRIUCheck string `json:"criu_check,omitempty"`
	Runc      Tool   `json:"runc"`
	// Helpers are programs that CRIU runs, by name, with their paths; an empty path: it is not there.
	Helpers map[string]string `json:"helpers"`

	Cgroups     Cgroups     `json:"cgroups"`
	Permissions Permissions `json:"permissions"`

	// RunIsTmpfs tells whether /run is a tmpfs.
	RunIsTmpfs bool   `json:"run_is_tmpfs"`
	Disks      []Disk `json:"disks"`
}

// Userfaultfd is what userfaultfd offers to this process.
type Userfaultfd struct {
	// Err says why there is none at all; empty if there is.
	Err string `json:"error,omitempty"`
	// Features are what the kernel knows.
	Features uffd.Features `json:"features"`
	// SyscallErr, DeviceErr and ForkErr say why userfaultfd(2), /dev/userfaultfd and fork events are refused to this
	// process; empty if they are not.
	SyscallErr string `json:"syscall_error,omitempty"`
	DeviceErr  string `json:"device_error,omitempty"`
	ForkErr    string `json:"fork_error,omitempty"`
}

// Tracing is from where in the kernel first touches can be recorded by this process.
type Tracing struct {
	// Err says why they cannot be recorded at all, empty if they can; Permission tells whether it is a permission that is
	// missing.
	Err        string `json:"error,omitempty"`
	Permission bool   `json:"permission_missing,omitempty"`
	// Point is the best place that can be used; Refused are better ones, with why they cannot.
	Point   trace.Point `json:"point,omitzero"`
	Refused []string    `json:"refused,omitempty"`
}

// Tool is a program that we run.
type Tool struct {
	Path    string `json:"path,omitempty"`    // empty: it is not there
	Version string `json:"version,omitempty"` // such as "4.2.1"
	Err     string `json:"error,omitempty"`   // why it cannot be found or run
}

// Cgroups says which cgroup hierarchies are mounted and whether we may make groups in them.
type Cgroups struct {
	V1       []string `json:"v1,omitempty"` // mount points of v1 hierarchies
	V2       string   `json:"v2,omitempty"` // mount point of the v2 hierarchy
	Writable bool     `json:"writable"`     // all of them
}

// Permissions are what this process may do.
type Permissions struct {
	UID          int      `json:"uid"`
	Capabilities []string `json:"capabilities"` // effective ones, of those that we care about, such as "CAP_SYS_ADMIN"
	OpenFiles    uint64   `json:"open_files"`   // hard limit of descriptors
}

// Disk is a folder with the space that is free there.
type Disk struct {
	Use  string `json:"use"` // what it is for, such as "page store"
	Path string `json:"path"`
	Free uint64 `json:"free_bytes"`
	Err  string `json:"error,omitempty"`
}
