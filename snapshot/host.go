package snapshot

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"thaw/checkpoint"
)

// Host says on what kind of host a snapshot was taken, and how. It is kept as JSON in the snapshot.
type Host struct {
	Kernel   string   `json:"kernel,omitempty"`    // release, as uname -r tells it
	Arch     string   `json:"arch,omitempty"`      // as GOARCH
	CPU      string   `json:"cpu,omitempty"`       // model name
	CPUFlags []string `json:"cpu_flags,omitempty"` // features that a program may have found and may use, sorted
	CRIU     string   `json:"criu,omitempty"`      // version that dumped; empty if images were imported
	Runtime  Runtime  `json:"runtime,omitempty"`   // what dumped; empty if images were imported

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
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		h.CPU, h.CPUFlags = parseCPUInfo(text)
	}
	return h
}

// parseCPUInfo reads the first CPU in the text of /proc/cpuinfo: its model and its features, sorted.
func parseCPUInfo(text []byte) (model string, flags []string) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20) // the line of flags has some kilobytes
	for lines.Scan() && lines.Text() != "" {
		key, value, _ := strings.Cut(lines.Text(), ":")
		switch strings.TrimSpace(key) {
		case "model name":
			model = strings.TrimSpace(value)
		case "flags", "Features":
			flags = strings.Fields(value)
		}
	}
	slices.Sort(flags)
	return model, slices.Compact(flags)
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
	var missing []string
	for _, f := range h.CPUFlags {
		if _, ok := slices.BinarySearch(now.CPUFlags, f); !ok && len(now.CPUFlags) > 0 {
			missing = append(missing, f)
		}
	}
	if len(missing) > 0 {
		out = append(out, "this CPU lacks features of the one it was frozen on: "+strings.Join(missing, " "))
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
