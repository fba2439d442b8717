//go:build linux && (amd64 || arm64)

package uffd

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

const devicePath = "/dev/userfaultfd"

// userModeOnly is UFFD_USER_MODE_ONLY.
const userModeOnly = 1

// open makes a descriptor whose API is not negotiated yet.
func open(userMode bool) (int, error) {
	flags := unix.O_CLOEXEC | unix.O_NONBLOCK
	if userMode {
		flags |= userModeOnly
	}
	fd, err := newUserfaultfd(flags)
	if err == nil {
		return fd, nil
	}
	if fd, deviceErr := openDevice(flags); deviceErr == nil {
		return fd, nil
	}
	switch {
	case errors.Is(err, unix.ENOSYS):
		return -1, fmt.Errorf("userfaultfd: %w: the kernel was built without it", ErrNotSupported)
	case errors.Is(err, unix.EINVAL):
		return -1, fmt.Errorf("userfaultfd: user mode only: %w: needs Linux 5.11", ErrNotSupported)
	case errors.Is(err, unix.EPERM):
		return -1, fmt.Errorf("userfaultfd: %w: needs CAP_SYS_PTRACE, vm.unprivileged_userfaultfd=1 or access to %s", err, devicePath)
	}
	return -1, fmt.Errorf("userfaultfd: %w", err)
}

func openDevice(flags int) (int, error) {
	device, err := unix.Open(devicePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", devicePath, err)
	}
	defer unix.Close(device)
	fd, err := newFromDevice(device, flags)
	if err != nil {
		return -1, fmt.Errorf("ask %s for a userfaultfd: %w", devicePath, err)
	}
	return fd, nil
}

// negotiationError explains why the kernel refused opts. A descriptor can be negotiated once only, so it asks
// another one what there is.
func negotiationError(errno syscall.Errno, opts *Options) error {
	if errno == unix.EPERM && opts.Features.Has(FeatureEventFork) {
		return fmt.Errorf("negotiate userfaultfd: %v needs CAP_SYS_PTRACE: %w", FeatureEventFork, errno)
	}
	available, err := availableFeatures(opts.UserModeOnly)
	if missing := opts.Features &^ available; errno == unix.EINVAL && err == nil && missing != 0 {
		return fmt.Errorf("negotiate userfaultfd: %v: %w: needs Linux %s", missing, ErrNotSupported, missing.Since())
	}
	return fmt.Errorf("negotiate userfaultfd with features %v: %w", opts.Features, errno)
}

func availableFeatures(userMode bool) (Features, error) {
	fd, err := open(userMode)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	features, _, errno := negotiate(fd, 0)
	if errno != 0 {
		return 0, errno
	}
	return features, nil
}
