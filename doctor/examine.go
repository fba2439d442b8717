package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"thaw/restore/tracer/trace"
	"thaw/uffd"
)

const (
	// minCRIU is the first CRIU whose images we write (page counts of 64 bits) and that knows the vDSO of current kernels.
	minCRIU = "4.2"
	// minRunc is the first runc that hands a CRIU configuration file named by the bundle to CRIU on checkpoint and restore
	// alike.
	minRunc = "1.1"
	// minKernel is the first kernel with all that we call without an alternative: pidfd_open (5.3), openat2 (5.6).
	minKernel = "5.6"
	// minOpenFiles leaves room for the ten descriptors or so of each of a hundred restores.
	minOpenFiles = 4096
	// minFree is room for one snapshot of a process with a big model: its images, and the packs made of them.
	minFree = 8 << 30
)

// neededFeatures are the events without which a server cannot follow what a restored process does to its memory.
const neededFeatures = uffd.FeatureEventFork | uffd.FeatureEventRemap | uffd.FeatureEventRemove | uffd.FeatureEventUnmap

// Examine judges a host. It has no effects.
func Examine(h *Host) Report {
	return Report{Findings: slices.Concat(
		[]Finding{
			examineKernel(h),
			examineUserfaultfd(&h.Userfaultfd),
			examineTracing(&h.Tracing),
			examineCRIU(h),
			examineRunc(h),
			examineHelpers(h),
			examineCgroups(&h.Cgroups),
			examinePermissions(&h.Permissions),
			examineOpenFiles(&h.Permissions),
			examineRunDir(h),
		},
		examineDisks(h.Disks),
	)}
}

func examineKernel(h *Host) Finding {
	has := fmt.Sprintf("Linux %s on %s", h.Kernel, h.Arch)
	switch {
	case h.Arch != "amd64":
		return missing("kernel", has, "thawing is made for amd64 so far", "")
	case !atLeast(h.Kernel, minKernel):
		return missing("kernel", has, "Linux "+minKernel+" or newer is needed", "upgrade the kernel; Debian 12 and 13 have one that serves")
	}
	return ok("kernel", has)
}

func examineUserfaultfd(u *Userfaultfd) Finding {
	const check = "userfaultfd"
	if u.Err != "" {
		return missing(check, "none", u.Err,
			"use a kernel with CONFIG_USERFAULTFD; in a container, let its seccomp profile allow userfaultfd(2)")
	}
	has := (u.Features & (neededFeatures | uffd.FeaturePoison)).String()
	if lacks := neededFeatures &^ u.Features; lacks != 0 {
		return missing(check, has, "no "+lacks.String(), "use Linux "+lacks.Since()+" or newer")
	}
	switch {
	case u.SyscallErr != "" && u.DeviceErr != "":
		return missing(check, has, "this process may not use it for faults in the kernel: "+u.SyscallErr,
			"run as root, or: sysctl vm.unprivileged_userfaultfd=1")
	case u.ForkErr != "":
		return missing(check, has, "this process may not ask for fork events: "+u.ForkErr, "run with CAP_SYS_PTRACE")
	case !u.Features.Has(uffd.FeaturePoison):
		return warn(check, has, "no poison: where a page cannot be had its process is killed, not only the access refused",
			"use Linux "+uffd.FeaturePoison.Since()+" or newer")
	}
	return ok(check, has)
}

// examineTracing never blocks: without a tracer there are no working sets from it, and all else works.
func examineTracing(t *Tracing) Finding {
	const check = "tracing"
	switch {
	case t.Permission:
		return warn(check, "none", "first touches cannot be recorded: "+t.Err, "run as root, or grant CAP_BPF, CAP_PERFMON and read access to tracefs")
	case t.Err != "":
		return warn(check, "none", "first touches cannot be recorded: "+t.Err,
			"use Linux 5.12 or newer with CONFIG_BPF_SYSCALL and CONFIG_BPF_EVENTS; mount -t tracefs none /sys/kernel/tracing")
	}
	has := t.Point.String()
	if blind := t.Point.Blind() &^ trace.PointFentry.Blind(); blind != 0 {
		has += "; from there cannot be seen: " + blind.String()
	}
	if t.Point.Blind()&trace.BlindKernel != 0 {
		return warn(check, has, "a working set lacks what system calls touch", "use a kernel with CONFIG_DEBUG_INFO_BTF and CONFIG_DYNAMIC_FTRACE, for fentry")
	}
	return ok(check, has)
}

func examineCRIU(h *Host) Finding {
	const check = "criu"
	const fix = "make deps (it unpacks a newer one beside the system's), or set THAW_CRIU to the path of one"
	if h.CRIU.Path == "" {
		return missing(check, "none", h.CRIU.Err, fix)
	}
	has := fmt.Sprintf("%s at %s", orUnknown(h.CRIU.Version), h.CRIU.Path)
	switch {
	case h.CRIU.Err != "":
		return missing(check, has, h.CRIU.Err, fix)
	case !atLeast(h.CRIU.Version, minCRIU):
		return missing(check, has, minCRIU+" or newer is needed: older ones fail on new kernels", fix)
	case h.CRIUCheck != "":
		return missing(check, has, "`criu check` complains: "+h.CRIUCheck, "see what it names; most of it is kernel configuration or privilege")
	}
	return ok(check, has+", content with this kernel")
}

func examineRunc(h *Host) Finding {
	const check = "runc"
	if h.Runc.Path == "" {
		return warn(check, "none", "only plain processes can be frozen and thawed, not containers", "apt-get install runc")
	}
	has := fmt.Sprintf("%s at %s", orUnknown(h.Runc.Version), h.Runc.Path)
	switch {
	case h.Runc.Err != "":
		return missing(check, has, h.Runc.Err, "apt-get install runc")
	case !atLeast(h.Runc.Version, minRunc):
		return missing(check, has, minRunc+" or newer is needed", "upgrade runc")
	}
	return ok(check, has)
}

// helperUses says what CRIU needs its helpers for, and how to get them.
var helperUses = []struct{ name, use, fix string }{
	{"tar", "containers with a tmpfs", "apt-get install tar"},
	{"ip", "containers with a network namespace of their own", "apt-get install iproute2"},
}

func examineHelpers(h *Host) Finding {
	var has, lacks, fixes []string
	for _, helper := range helperUses {
		if path := h.Helpers[helper.name]; path != "" {
			has = append(has, path)
		} else {
			lacks = append(lacks, fmt.Sprintf("no %s: CRIU needs it for %s", helper.name, helper.use))
			fixes = append(fixes, helper.fix)
		}
	}
	found := strings.Join(has, ", ")
	if len(has) == 0 {
		found = "none"
	}
	if len(lacks) > 0 {
		return warn("helpers", found, strings.Join(lacks, "; "), strings.Join(fixes, "; "))
	}
	return ok("helpers", found)
}

func examineCgroups(c *Cgroups) Finding {
	const check = "cgroups"
	var kind string
	switch {
	case c.V2 != "" && len(c.V1) > 0:
		kind = "hybrid: v1 with v2 at " + c.V2
	case c.V2 != "":
		kind = "v2 at " + c.V2
	case len(c.V1) > 0:
		kind = fmt.Sprintf("v1, %d hierarchies", len(c.V1))
	default:
		return warn(check, "none mounted", "runc starts no containers", "mount -t cgroup2 none /sys/fs/cgroup")
	}
	if !c.Writable {
		return warn(check, kind+", not writable", "containers cannot get a group of their own",
			"run as root, and in a container with its cgroups mounted for writing")
	}
	return ok(check, kind+", writable")
}

// neededCapabilities are those of freezing and thawing, with what does not work without each.
var neededCapabilities = []struct{ name, without string }{
	{"CAP_SYS_ADMIN", "no mounts and namespaces can be restored"},
	{"CAP_SYS_PTRACE", "no process can be frozen, and no userfaultfd follows forks"},
	{"CAP_CHECKPOINT_RESTORE", "processes do not get their pids back"},
}

func examinePermissions(p *Permissions) Finding {
	const check = "permissions"
	has := "uid " + strconv.Itoa(p.UID)
	if p.UID != 0 {
		return missing(check, has, "freezing and thawing run CRIU and runc as root; thawd itself needs no privilege beyond its sockets", "run as root: sudo thaw doctor")
	}
	have := func(name string) bool { return slices.Contains(p.Capabilities, name) }
	var lacks []string
	for _, c := range neededCapabilities {
		// CAP_SYS_ADMIN includes CAP_CHECKPOINT_RESTORE, which came with Linux 5.9.
		implied := c.name == "CAP_CHECKPOINT_RESTORE" && have("CAP_SYS_ADMIN")
		if !have(c.name) && !implied {
			lacks = append(lacks, fmt.Sprintf("no %s: %s", c.name, c.without))
		}
	}
	if len(lacks) > 0 {
		return missing(check, has, strings.Join(lacks, "; "), "run on the host, or in a container with these capabilities")
	}
	if !have("CAP_SYS_RESOURCE") {
		return warn(check, has+", no CAP_SYS_RESOURCE", "CRIU cannot read the limits of a process of another uid: containers to be frozen must run as uid 0",
			"run where CAP_SYS_RESOURCE is granted, or keep to uid 0 in the containers")
	}
	return ok(check, has+", all capabilities that are needed")
}

func examineOpenFiles(p *Permissions) Finding {
	has := fmt.Sprintf("up to %d", p.OpenFiles)
	if p.OpenFiles < minOpenFiles {
		return warn("open files", has, fmt.Sprintf("a busy thawd holds more: %d or more are better", minOpenFiles),
			"ulimit -n "+strconv.Itoa(minOpenFiles)+", or LimitNOFILE= in thawd's unit")
	}
	return ok("open files", has)
}

func examineRunDir(h *Host) Finding {
	if !h.RunIsTmpfs {
		return warn("/run", "no tmpfs", "CRIU probes the kernel anew at each start, which makes every restore up to a tenth of a second slower",
			"mount a tmpfs at /run before anything uses it")
	}
	return ok("/run", "a tmpfs: CRIU keeps there what it knows of the kernel")
}

func examineDisks(disks []Disk) []Finding {
	var all []Finding
	for _, d := range disks {
		check := "disk"
		has := fmt.Sprintf("%s at %s: %.1f GB free", d.Use, d.Path, float64(d.Free)/1e9)
		switch {
		case d.Err != "":
			all = append(all, missing(check, fmt.Sprintf("%s at %s", d.Use, d.Path), d.Err, "make the folder, or name another"))
		case d.Free < minFree:
			all = append(all, warn(check, has, "a snapshot of a process with a big model may not fit", "free some space, or use another folder"))
		default:
			all = append(all, ok(check, has))
		}
	}
	return all
}

func orUnknown(version string) string {
	if version == "" {
		return "unknown version"
	}
	return version
}

// atLeast compares versions number by number, up to the first part that is no number.
func atLeast(version, want string) bool {
	have, need := numbers(version), numbers(want)
	if len(have) == 0 {
		return false
	}
	return slices.Compare(have, need) >= 0
}

func numbers(version string) []int {
	var all []int
	for part := range strings.SplitSeq(version, ".") {
		digits := part
		if end := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
			digits = part[:end]
		}
		n, err := strconv.Atoi(digits)
		if err != nil {
			break
		}
		all = append(all, n)
		if digits != part {
			break
		}
	}
	return all
}
