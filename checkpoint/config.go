package checkpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Config holds CRIU options that runc has no flags for. They reach CRIU through a configuration file that the bundle
// names in [ConfigAnnotation]; what stands in it wins over what runc says. The zero value is right for containers that
// have no open connections to the outside.
type Config struct {
	// NetworkLock is how CRIU holds back packets while it dumps: "skip" (the default), "iptables" or "nftables". The
	// latter two need these tools on the host, and are of use only to processes with open TCP connections.
	NetworkLock string
	// ManageCgroups is CRIU's mode for cgroups: "ignore" (the default), "none", "props", "soft", "full" or "strict".
	// With "ignore" a restored process stays in the cgroup that runc put CRIU into, which is the container's own; the
	// other modes make CRIU mount the cgroup hierarchies and write the dumped properties into them.
	ManageCgroups string
	// ActionScript is the path of a program that CRIU runs at each stage with CRTOOLS_SCRIPT_ACTION set, empty for none.
	// "pre-resume" is the stage in which all memory of a lazy restore is registered and nothing runs yet.
	ActionScript string
	// GhostLimit is the size in bytes up to which a deleted file that is still open is kept in the images; 0 is CRIU's own limit of 1 MiB.
	GhostLimit uint64
	// LinkRemap lets CRIU give an open file whose name was deleted, and which has another, a name again beside the old one for the time from the
	// freeze to the restore. The root file system must be writable, and be kept with the images.
	LinkRemap bool
	// SizesOnly has CRIU know files again by their sizes alone, and not by the build ids of libraries too, for which it opens and maps each one.
	// For root file systems that are known to be the same.
	SizesOnly bool
}

// ConfigAnnotation is the annotation of a bundle that names the CRIU configuration file; runc looks for it on checkpoint
// and on restore.
const ConfigAnnotation = "org.criu.config"

func (c *Config) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "network-lock %s\n", orDefault(c.NetworkLock, "skip"))
	fmt.Fprintf(&b, "manage-cgroups=%s\n", orDefault(c.ManageCgroups, "ignore"))
	if c.ActionScript != "" {
		fmt.Fprintf(&b, "action-script %s\n", c.ActionScript)
	}
	if c.GhostLimit != 0 {
		fmt.Fprintf(&b, "ghost-limit %d\n", c.GhostLimit)
	}
	if c.LinkRemap {
		b.WriteString("link-remap\n")
	}
	if c.SizesOnly {
		b.WriteString("file-validation filesize\n")
	}
	return b.String()
}

// args returns the options as CRIU's command line takes them.
func (c *Config) args() []string {
	args := []string{
		"--network-lock", orDefault(c.NetworkLock, "skip"),
		"--manage-cgroups=" + orDefault(c.ManageCgroups, "ignore"),
	}
	if c.ActionScript != "" {
		args = append(args, "--action-script", c.ActionScript)
	}
	if c.GhostLimit != 0 {
		args = append(args, "--ghost-limit", strconv.FormatUint(c.GhostLimit, 10))
	}
	if c.LinkRemap {
		args = append(args, "--link-remap")
	}
	if c.SizesOnly {
		args = append(args, "--file-validation", "filesize")
	}
	return args
}

// WriteFile writes the configuration file to path.
func (c *Config) WriteFile(path string) error {
	// The format is split at white space and knows no way to quote it.
	if strings.ContainsAny(c.ActionScript, " \t\n\"#") || (c.ActionScript != "" && !filepath.IsAbs(c.ActionScript)) {
		return fmt.Errorf("action script %q: CRIU needs an absolute path without white space, quotes or #", c.ActionScript)
	}
	if err := os.WriteFile(path, []byte(c.text()), 0o644); err != nil {
		return fmt.Errorf("write CRIU configuration: %w", err)
	}
	return nil
}

func orDefault(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}
