//go:build linux && (amd64 || arm64)

package uffd

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Probe asks this kernel what it offers, and what it offers to this process. It fails only if there is no way
// to get a userfaultfd at all, even one for faults in user mode only.
func Probe() (Info, error) {
	var info Info
	info.SyscallErr = tryOpen(newUserfaultfd)
	info.DeviceErr = tryOpen(openDevice)

	fd, err := open(false)
	if err != nil {
		fd, err = open(true)
	}
	if err != nil {
		return info, err
	}
	defer unix.Close(fd)
	features, ioctls, errno := negotiate(fd, 0)
	if errno != 0 {
		return info, fmt.Errorf("negotiate userfaultfd: %w", errno)
	}
	info.Features, info.Ioctls = features, ioctls

	if info.RangeIoctls, err = probeRange(fd); err != nil {
		return info, err
	}
	info.ForkErr = probeFork()
	return info, nil
}

func tryOpen(open func(flags int) (int, error)) error {
	fd, err := open(unix.O_CLOEXEC | unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// probeRange registers a page that nobody touches.
func probeRange(fd int) (ioctls Ioctls, err error) {
	page, err := unix.Mmap(-1, 0, PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, fmt.Errorf("map a page to register: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(page)) }()
	start := addressOf(page)
	ioctls, errno := register(fd, Range{start, start + PageSize}, ModeMissing)
	if errno != 0 {
		return 0, fmt.Errorf("register a page: %w", errno)
	}
	return ioctls, nil
}

func probeFork() error {
	fd, err := Open(&Options{Features: FeatureEventFork})
	if err != nil {
		return err
	}
	return fd.Close()
}
