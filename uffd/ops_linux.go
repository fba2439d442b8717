//go:build linux && (amd64 || arm64)

package uffd

import "fmt"

// Register has the faults in r reported. r may span several mappings, all of a kind that supports the mode;
// it returns the operations that all of them allow. Registering again with the same descriptor changes the mode.
//
// Returns an error that wraps EINVAL if there is no mapping at the start of r, or one that cannot be
// registered; EBUSY if another userfaultfd holds part of r; ENOMEM if the target is gone.
func (f *FD) Register(r Range, mode Mode) (Ioctls, error) {
	if !f.gate.enter() {
		return 0, ErrClosed
	}
	defer f.gate.leave()
	ioctls, errno := register(f.fd, r, mode)
	if errno != 0 {
		return 0, fmt.Errorf("register %v for %v: %w", r, mode, errno)
	}
	return ioctls, nil
}

// Unregister stops the reporting of faults in r and wakes all threads that wait there; pages that are missing
// read as zeros from then on.
//
// Returns an error that wraps EINVAL if there is no mapping at the start of r, ENOMEM if the target is gone or
// the split mappings would be too many for it.
func (f *FD) Unregister(r Range) error {
	if !f.gate.enter() {
		return ErrClosed
	}
	defer f.gate.leave()
	if errno := onRange(f.fd, ioUnregister, r); errno != 0 {
		return fmt.Errorf("unregister %v: %w", r, errno)
	}
	return nil
}

// Wake wakes the threads that wait for a page in r; those whose page is still missing fault again. It does not
// look at the mappings, so r need not be registered, and the target need not live.
func (f *FD) Wake(r Range) error {
	if !f.gate.enter() {
		return ErrClosed
	}
	defer f.gate.leave()
	if errno := onRange(f.fd, ioWake, r); errno != 0 {
		return fmt.Errorf("wake %v: %w", r, errno)
	}
	return nil
}

// Copy installs the pages of src, a whole number of them, at dst, and wakes who waits for them. The target
// sees each page either missing or complete. It does not allocate.
//
// src may be a mapping of a file, whose pages need not be resident. But a copy of 512 KiB or less holds on to
// the thread's Go processor meanwhile: such sources should be at hand. If the file has shrunk or its storage
// fails the outcome is Unreadable; there is no SIGBUS, because the kernel does the reading.
func (f *FD) Copy(dst uint64, src []byte, flags CopyFlags) Result {
	if !f.gate.enter() {
		return Result{Outcome: Closed}
	}
	r := copyPages(f.fd, dst, src, flags)
	f.gate.leave()
	return r
}

// Zeropage installs pages that read as zeros, and wakes who waits for them. It does not allocate. Of private
// anonymous memory the shared zero page is mapped, which costs the target no memory until it writes.
//
// Returns Invalid for mappings whose IoctlZeropage Register did not report, such as hugetlbfs.
func (f *FD) Zeropage(r Range, flags ZeropageFlags) Result {
	return f.install(ioZeropage, r, uint64(flags))
}

// Continue maps the pages that the page cache holds, after a minor fault. It does not allocate.
func (f *FD) Continue(r Range, flags ContinueFlags) Result {
	return f.install(ioContinue, r, uint64(flags))
}

// Poison makes accesses to the missing pages of r raise SIGBUS, as memory with a hardware fault does: the
// target learns that the content is lost, and nobody reads wrong bytes. It does not allocate. See FeaturePoison.
func (f *FD) Poison(r Range, flags PoisonFlags) Result {
	return f.install(ioPoison, r, uint64(flags))
}

func (f *FD) install(op uintptr, r Range, mode uint64) Result {
	if !f.gate.enter() {
		return Result{Outcome: Closed}
	}
	result := install(f.fd, op, r, mode)
	f.gate.leave()
	return result
}

// Move moves length bytes of pages from src to dst without copying them; the source is missing afterwards. Both
// addresses are the target's, and the kernel demands that the caller is the target: else the outcome is
// Invalid. Busy means that a source page is pinned or shared. It does not allocate. See FeatureMove.
func (f *FD) Move(dst, src, length uint64, flags MoveFlags) Result {
	if !f.gate.enter() {
		return Result{Outcome: Closed}
	}
	r := movePages(f.fd, dst, src, length, flags)
	f.gate.leave()
	return r
}

// WriteProtect protects the pages of r against writing, or lifts the protection and wakes who waits for it.
// The kernel does all of r or reports nothing of what it did, so Bytes is either 0 or the length. It does not
// allocate. r must be registered with ModeWP.
func (f *FD) WriteProtect(r Range, on bool, flags WriteProtectFlags) Result {
	if !f.gate.enter() {
		return Result{Outcome: Closed}
	}
	defer f.gate.leave()
	mode := uint64(flags)
	if on {
		mode |= writeProtectOn
	}
	if errno := writeProtect(f.fd, r, mode); errno != 0 {
		return Result{Outcome: outcomeOf(errno), Errno: errno}
	}
	return Result{Bytes: r.Len()}
}

// writeProtectOn is UFFDIO_WRITEPROTECT_MODE_WP.
const writeProtectOn = 1
