package snapshot

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"thaw/checkpoint"
	"thaw/cpu"
)

// Host says on what kind of host a snapshot was taken, and how. It is kept as JSON in the snapshot.
type Host struct {
	Kernel   string  `json:"kernel,omitempty"`    // release, as uname -r tells it
	Arch     string  `json:"arch,omitempty"`      // as GOARCH
	CPU      string  `json:"cpu,omitempty"`       // model name
	CPUFlags cpu.Set `json:"cpu_flags,omitempty"` // features that the process may use
	CRIU     string  `json:"criu,omitempty"`      // version that dumped; empty if images were imported
	Runtime  Runtime `json:"runtime,omitempty"`   // what dumped; empty if images were imported

	Repeat
}

// Repeat are the options of a dump that a restore must repeat.
type Repeat struct {
	ShellJob            bool `json:"shell_job,omitempty"`
	TCPEstablished      bool `json:"tcp_established,omitempty"`
	FileLocks           bool `json:"file_locks,omitempty"`
	ExternalUnixSockets bool `json:"ext_unix_sk,omitempty"`
}

// A Runtime is what a process was frozen with, and is thawed with.
type Runtime string

const (
	// RuntimeCRIU: a plain process, without a container.
	RuntimeCRIU Runtime = "criu"
	// RuntimeRunc: a container of runc's.
	RuntimeRunc Runtime = "runc"
)

// thisHost returns what can be said of the host that we run on.
func thisHost() Host {
	h := Host{Arch: runtime.GOARCH}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	// A host without this file says nothing of its CPU, and then nothing is compared.
	if c, err := cpu.ThisHost(); err == nil {
		h.CPU, h.CPUFlags = c.Model, c.Features
	}
	return h
}

// parseHost reads what Import wrote. Fields that it does not know come from a newer thaw and are let pass.
func parseHost(raw json.RawMessage) (Host, error) {
	var h Host
	if len(raw) == 0 {
		return h, nil
	}
	if err := json.Unmarshal(raw, &h); err != nil {
		return h, fmt.Errorf("read what the snapshot says of its host: %w", err)
	}
	return h, nil
}

// lacks returns what a process that was frozen on h may use and would not find on now, in words; nil if there is
// nothing.
func (h *Host) lacks(now *Host) []string {
	var out []string
	if h.Arch != "" && now.Arch != h.Arch {
		out = append(out, fmt.Sprintf("it was frozen on %s, and this host is %s", h.Arch, now.Arch))
	}
	// Snapshots of an older thaw name also what only the kernel sees.
	if err := now.CPUFlags.Admit(cpu.Visible(h.CPUFlags)); err != nil && len(now.CPUFlags) > 0 {
		out = append(out, err.Error())
	}
	return out
}

// describe fills in what dumped.
func (h *Host) describe(ctx context.Context, tools *checkpoint.Tools, r Runtime, o *checkpoint.DumpOptions) error {
	version, err := tools.CRIUVersion(ctx)
	if err != nil {
		return err
	}
	h.CRIU, h.Runtime = version, r
	h.Repeat = Repeat{
		ShellJob: o.ShellJob, TCPEstablished: o.TCPEstablished, FileLocks: o.FileLocks,
		ExternalUnixSockets: o.ExternalUnixSockets,
	}
	return nil
}
