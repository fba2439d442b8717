package doctor

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/restore/tracer/trace"
	"thaw/uffd"
)

// goodHost returns a host that lacks nothing.
func goodHost() *Host {
	return &Host{
		Arch:        "amd64",
		Kernel:      "6.12.41+deb13-amd64",
		Userfaultfd: Userfaultfd{Features: neededFeatures | uffd.FeaturePoison},
		Tracing:     Tracing{Point: trace.PointTracepoints, Refused: []string{"fentry: no"}},
		CRIU:        Tool{Path: "/usr/sbin/criu", Version: "4.2.1"},
		Runc:        Tool{Path: "/usr/sbin/runc", Version: "1.1.15+ds1"},
		Helpers:     map[string]string{"tar": "/usr/bin/tar", "ip": "/usr/sbin/ip"},
		Cgroups:     Cgroups{V2: "/sys/fs/cgroup", Writable: true},
		Permissions: Permissions{
			Capabilities: []string{"CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE", "CAP_CHECKPOINT_RESTORE"},
			OpenFiles:    1 << 20,
		},
		RunIsTmpfs: true,
		Disks:      []Disk{{Use: "page store", Path: "/var/lib/thaw", Free: 100 << 30}},
	}
}

func TestHostThatLacksNothingPassesEveryCheck(t *testing.T) {
	r := Examine(goodHost())
	for _, f := range r.Findings {
		if f.Status != OK || f.Lacks != "" || f.Fix != "" {
			t.Errorf("finding is %+v", f)
		}
	}
	if r.Status() != OK {
		t.Errorf("status is %s", r.Status())
	}
}

func TestEachLackIsFoundAndHasARemedy(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Host)
		check  string
		status Status
		lacks  string // a part of what is said
		noFix  bool
	}{
		{name: "a kernel that is too old", change: func(h *Host) { h.Kernel = "5.4.0-1" }, check: "kernel", status: Missing, lacks: "5.6"},
		{name: "another architecture", change: func(h *Host) { h.Arch = "arm64" }, check: "kernel", status: Missing, lacks: "amd64", noFix: true},
		{name: "no userfaultfd", change: func(h *Host) { h.Userfaultfd = Userfaultfd{Err: "function not implemented"} },
			check: "userfaultfd", status: Missing, lacks: "not implemented"},
		{name: "no remap events", change: func(h *Host) { h.Userfaultfd.Features &^= uffd.FeatureEventRemap },
			check: "userfaultfd", status: Missing, lacks: "event_remap"},
		{name: "userfaultfd for root only", change: func(h *Host) {
			h.Userfaultfd.SyscallErr, h.Userfaultfd.DeviceErr = "operation not permitted", "permission denied"
		}, check: "userfaultfd", status: Missing, lacks: "operation not permitted"},
		{name: "no fork events for this process", change: func(h *Host) { h.Userfaultfd.ForkErr = "operation not permitted" },
			check: "userfaultfd", status: Missing, lacks: "fork"},
		{name: "no poison", change: func(h *Host) { h.Userfaultfd.Features &^= uffd.FeaturePoison },
			check: "userfaultfd", status: Warning, lacks: "poison"},
		{name: "no permission to trace", change: func(h *Host) { h.Tracing = Tracing{Err: "operation not permitted", Permission: true} },
			check: "tracing", status: Warning, lacks: "not permitted"},
		{name: "no way to trace", change: func(h *Host) { h.Tracing = Tracing{Err: "no BPF"} }, check: "tracing", status: Warning, lacks: "no BPF"},
		{name: "half a way to trace", change: func(h *Host) { h.Tracing.Point = trace.PointUserTracepoint },
			check: "tracing", status: Warning, lacks: "system calls"},
		{name: "no CRIU", change: func(h *Host) { h.CRIU = Tool{Err: "not found in PATH"} }, check: "criu", status: Missing, lacks: "not found"},
		{name: "a CRIU that is too old", change: func(h *Host) { h.CRIU.Version = "3.17.1" }, check: "criu", status: Missing, lacks: "4.2"},
		{name: "a CRIU that does not start", change: func(h *Host) { h.CRIU = Tool{Path: "/x/criu", Err: "exec format error"} },
			check: "criu", status: Missing, lacks: "exec format"},
		{name: "a CRIU that complains", change: func(h *Host) { h.CRIUCheck = "no memory tracking" }, check: "criu", status: Missing, lacks: "tracking"},
		{name: "no runc", change: func(h *Host) { h.Runc = Tool{} }, check: "runc", status: Warning, lacks: "containers"},
		{name: "a runc that is too old", change: func(h *Host) { h.Runc.Version = "1.0.0-rc95" }, check: "runc", status: Missing, lacks: "1.1"},
		{name: "no tar", change: func(h *Host) { h.Helpers["tar"] = "" }, check: "helpers", status: Warning, lacks: "tmpfs"},
		{name: "no helpers at all", change: func(h *Host) { h.Helpers = nil }, check: "helpers", status: Warning, lacks: "no ip"},
		{name: "no cgroups", change: func(h *Host) { h.Cgroups = Cgroups{} }, check: "cgroups", status: Warning, lacks: "no containers"},
		{name: "cgroups for reading only", change: func(h *Host) { h.Cgroups.Writable = false }, check: "cgroups", status: Warning, lacks: "group of their own"},
		{name: "another user", change: func(h *Host) { h.Permissions.UID = 1000 }, check: "permissions", status: Missing, lacks: "root"},
		{name: "no CAP_SYS_PTRACE", change: func(h *Host) { h.drop("CAP_SYS_PTRACE") }, check: "permissions", status: Missing, lacks: "CAP_SYS_PTRACE"},
		{name: "no CAP_SYS_ADMIN", change: func(h *Host) { h.drop("CAP_SYS_ADMIN") }, check: "permissions", status: Missing, lacks: "CAP_SYS_ADMIN"},
		{name: "no CAP_SYS_RESOURCE", change: func(h *Host) { h.drop("CAP_SYS_RESOURCE") }, check: "permissions", status: Warning, lacks: "uid 0"},
		{name: "few open files", change: func(h *Host) { h.Permissions.OpenFiles = 1024 }, check: "open files", status: Warning, lacks: "4096"},
		{name: "a /run on a disk", change: func(h *Host) { h.RunIsTmpfs = false }, check: "/run", status: Warning, lacks: "probes"},
		{name: "a disk that is almost full", change: func(h *Host) { h.Disks[0].Free = 1 << 30 }, check: "disk", status: Warning, lacks: "fit"},
		{name: "a disk that cannot be looked at", change: func(h *Host) { h.Disks[0].Err = "permission denied" }, check: "disk", status: Missing, lacks: "denied"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := goodHost()
			test.change(h)
			r := Examine(h)
			if r.Status() != test.status {
				t.Errorf("the whole is %s, want %s", r.Status(), test.status)
			}
			for _, f := range r.Findings {
				if f.Check != test.check {
					if f.Status != OK {
						t.Errorf("another check is not content: %+v", f)
					}
					continue
				}
				if f.Status != test.status || !strings.Contains(f.Lacks, test.lacks) || (f.Fix == "") != test.noFix {
					t.Errorf("finding is %+v, want %s about %q with a remedy", f, test.status, test.lacks)
				}
			}
		})
	}
}

func (h *Host) drop(capability string) {
	h.Permissions.Capabilities = slices.DeleteFunc(h.Permissions.Capabilities, func(c string) bool { return c == capability })
}

func TestCheckpointRestoreCapabilityComesWithSysAdmin(t *testing.T) {
	h := goodHost()
	h.drop("CAP_CHECKPOINT_RESTORE")
	r := Examine(h)
	if r.Status() != OK {
		t.Errorf("status is %s", r.Status())
	}
}

func TestHybridCgroupsAreNamed(t *testing.T) {
	h := goodHost()
	h.Cgroups = Cgroups{V1: []string{"/sys/fs/cgroup/cpu"}, V2: "/sys/fs/cgroup/unified", Writable: true}
	if f := examineCgroups(&h.Cgroups); f.Status != OK || !strings.HasPrefix(f.Has, "hybrid") {
		t.Errorf("finding is %+v", f)
	}
}

func TestVersionsAreComparedNumberByNumber(t *testing.T) {
	tests := []struct {
		version, want string
		atLeast       bool
	}{
		{"4.2", "4.2", true},
		{"4.2.1", "4.2", true},
		{"4.10", "4.2", true},
		{"4.1.1", "4.2", false},
		{"5.0", "4.2", true},
		{"1.0.0-rc95", "1.1", false},
		{"1.1.5+ds1", "1.1", true},
		{"6.18.44-fc-v595", "5.6", true},
		{"5", "5.6", false},
		{"", "4.2", false},
		{"unknown", "4.2", false},
	}
	for _, test := range tests {
		if got := atLeast(test.version, test.want); got != test.atLeast {
			t.Errorf("%q at least %q: %v, want %v", test.version, test.want, got, test.atLeast)
		}
	}
}

func TestFindingsAreWrittenForPeopleAndForPrograms(t *testing.T) {
	f := warn("runc", "none", "only plain processes can be frozen", "apt-get install runc")
	want := "warning  runc         none\n" +
		"                      only plain processes can be frozen\n" +
		"                      fix: apt-get install runc"
	if diff := cmp.Diff(want, f.String()); diff != "" {
		t.Errorf("for people (-want +got):\n%s", diff)
	}
	data, err := json.Marshal(Report{Findings: []Finding{f, ok("kernel", "Linux 6")}})
	if err != nil {
		t.Fatal(err)
	}
	wantJSON := `{"findings":[{"check":"runc","status":"warning","has":"none","lacks":"only plain processes can be frozen","fix":"apt-get install runc"},` +
		`{"check":"kernel","status":"ok","has":"Linux 6"}]}`
	if diff := cmp.Diff(wantJSON, string(data)); diff != "" {
		t.Errorf("for programs (-want +got):\n%s", diff)
	}
}
