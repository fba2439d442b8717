package instance

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"thaw/checkpoint"
	"thaw/function/rootfs"
	"thaw/pagestore"
)

// Spec says what kind of container an instance is. What a restored instance gets must be what the frozen one had, but for Hostname, Limits,
// Devices, Network and Log.
type Spec struct {
	// Name is a part of the container's name, for people: letters, digits, '.', '_' and '-'.
	Name string

	// Root is the root file system below what the instance writes.
	Root *rootfs.Root

	// Code is the folder, absolute, that the container sees as /app. Empty: there is none, for a template.
	Code string

	// SDK is the folder, absolute, with the Python package thaw. Default: the host's.
	SDK string

	// Namespace is the one of the store that snapshots go to, and whose packs the container sees. Default: the store's default.
	Namespace string

	// Env is the environment of the runner at its start, besides the image's. What changes between instances belongs into the boot.
	Env map[string]string

	// Binds are more folders of the host that the container sees.
	Binds []checkpoint.Bind

	// Hostname is the container's host name. Default: the instance's ID.
	Hostname string

	// Limits bound what the container may use. The zero value bounds nothing.
	Limits checkpoint.Limits

	// Devices are paths of device nodes of the host. The container finds them by the same paths, once it is booted.
	Devices []string

	// Network connects the container to the network's bridge, once it is booted.
	Network bool

	// Detached keeps a restored container without its network and devices until its boot: for one that loads more and is frozen again.
	// A cold one always is, unless Open is set.
	Detached bool

	// Open gives the container its network and devices from the start. It is never frozen then.
	Open bool

	// Log gets what the runner writes to its standard error, in pieces, from one goroutine until Close has returned. Nil: nobody does.
	Log io.Writer
}

// Where a container sees what is the host's.
const (
	codeTarget  = "/app"
	sdkTarget   = "/.thaw/python"
	packsTarget = "/.thaw/packs"
)

var nameExpr = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$`)

func (s *Spec) check() error {
	switch {
	case !nameExpr.MatchString(s.Name):
		return fmt.Errorf("name of an instance %q: want up to 61 letters, digits, '.', '_' and '-', the first a letter or digit", s.Name)
	case s.Root == nil:
		return fmt.Errorf("instance of %s: no root file system", s.Name)
	case s.Code != "" && !filepath.IsAbs(s.Code):
		return fmt.Errorf("instance of %s: code: %w: %q", s.Name, checkpoint.ErrNotAbsolute, s.Code)
	}
	return nil
}

func (s *Spec) namespace() string {
	if s.Namespace == "" {
		return pagestore.DefaultNamespace
	}
	return s.Namespace
}

// environ returns the environment of the runner.
func (s *Spec) environ() []string {
	env := map[string]string{"HOME": "/root", "LANG": "C.UTF-8"}
	for _, kv := range s.Root.Env() {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	env["PYTHONPATH"] = sdkTarget
	if !s.Open {
		// So that no library looks for a GPU before there can be one. The boot puts back what the image says.
		env[HideGPUs] = ""
	}
	maps.Copy(env, s.Env)
	var out []string
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, k+"="+env[k])
	}
	return out
}

// HideGPUs is the variable that says which GPUs CUDA may see. Empty: none, which it is before a freeze; so whoever wants a value of it in a
// restored instance gives it with the boot.
const HideGPUs = "CUDA_VISIBLE_DEVICES"

// imageVariable returns what the image has for a variable of the environment, nil if it has nothing.
func (s *Spec) imageVariable(name string) (value *string) {
	for _, kv := range s.Root.Env() {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			value = &v
		}
	}
	return value
}

// devices looks up the devices by their paths.
func (s *Spec) devices() ([]device, error) {
	var all []device
	for _, path := range s.Devices {
		d, err := findDevice(path)
		if err != nil {
			return nil, fmt.Errorf("instance of %s: %w", s.Name, err)
		}
		all = append(all, d)
	}
	return all, nil
}

// ghostLimit is how large a file may be that is open and deleted when its process is frozen, in bytes. It is kept in the skeleton.
const ghostLimit = 64 << 20

// bundle returns the container.
func (s *shell) bundle() *checkpoint.Bundle {
	b := &checkpoint.Bundle{
		Rootfs:           s.overlay.Root(),
		OwnRoot:          true,
		Args:             []string{"python3", "-m", "thaw.runner"},
		Env:              s.spec.environ(),
		Hostname:         s.hostname(),
		NetworkNamespace: s.ns.Path(),
		CgroupsPath:      "/" + s.id,
		Limits:           s.spec.Limits,
		Binds: []checkpoint.Bind{
			{Source: cmp.Or(s.spec.SDK, s.host.options.SDK), Target: sdkTarget},
			{Source: s.hosts(), Target: "/etc/hosts"},
			{Source: s.resolvConf(), Target: "/etc/resolv.conf"},
		},
		CRIU: checkpoint.Config{GhostLimit: ghostLimit, LinkRemap: true, SizesOnly: true},
	}
	if s.spec.Code != "" {
		b.Binds = append(b.Binds, checkpoint.Bind{Source: s.spec.Code, Target: codeTarget})
	}
	if store := s.host.options.Store; store != nil {
		b.Binds = append(b.Binds, checkpoint.Bind{Source: store.PacksDir(s.spec.namespace()), Target: packsTarget})
	}
	b.Binds = append(b.Binds, s.spec.Binds...)
	for _, d := range s.devices {
		b.Devices = append(b.Devices, checkpoint.Device{
			Block: d.mode&unix.S_IFMT == unix.S_IFBLK, Major: int64(unix.Major(d.rdev)), Minor: int64(unix.Minor(d.rdev)),
		})
	}
	return b
}
