package daemon

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"thaw/restore"
)

const (
	// aroundBytes is how much the kernel maps around a page of a file that is touched, if it is in memory: an aligned window
	// of this size (fault_around_bytes, which is 64 KiB unless somebody has changed it).
	aroundBytes = 64 << 10
	// touchesAtOnce is how many pages are touched with one system call, in which the process keeps its
	// mappings: some 0.4 ms, as 2661 took 8 to 10 ms beside a process that had just begun to run.
	touchesAtOnce = 128
	// mappedWait is how long to wait before the next look whether the runtime has mapped the files by now.
	mappedWait = 200 * time.Microsecond
)

// populate has the kernel enter pages of files that a process has mapped into its page tables, by reading a byte of each window from here.
// It begins when the first of them is mapped, and gives up if they are not within patience. What cannot be read is left out: the
// process may be gone, or not ours to look into, or have changed its mappings. It returns how many windows were read.
//
// The pages are in no userfaultfd, so nobody has to be asked for them; where they are not in memory the kernel reads them from the
// disk.
func populate(ctx context.Context, pid int, pages []restore.Extent, patience time.Duration) (touched int) {
	deadline := time.Now().Add(patience)
	var local [touchesAtOnce]byte
	remote := make([]unix.RemoteIovec, 0, touchesAtOnce)
	next := windows(pages)
	for addr, more := next(); more || len(remote) > 0; {
		for more && len(remote) < touchesAtOnce {
			remote = append(remote, unix.RemoteIovec{Base: uintptr(addr), Len: 1})
			addr, more = next()
		}
		n, err := unix.ProcessVMReadv(pid, []unix.Iovec{iovec(local[:len(remote)])}, remote, 0)
		switch {
		case ctx.Err() != nil:
			return touched
		case n > 0:
			touched += n
			remote = remote[:copy(remote, remote[n:])]
		case errors.Is(err, unix.EFAULT) && touched == 0 && time.Now().Before(deadline):
			time.Sleep(mappedWait)
		case errors.Is(err, unix.EFAULT):
			remote = remote[:copy(remote, remote[1:])]
		default:
			return touched // it is gone, or not ours to look into
		}
	}
	return touched
}

func iovec(b []byte) unix.Iovec {
	v := unix.Iovec{Base: &b[0]}
	v.SetLen(len(b))
	return v
}

// windows returns a function that yields an address in each window that the pages have a part in, in their order.
func windows(pages []restore.Extent) func() (addr uint64, ok bool) {
	var end uint64 // of the window that was yielded last
	var at uint64  // in pages[0]; 0: at its beginning
	return func() (uint64, bool) {
		for len(pages) > 0 {
			e := pages[0]
			addr := max(at, e.Addr)
			if addr < end && addr >= end-aroundBytes {
				addr = end // the window has it
			}
			if addr >= e.Addr+e.Pages*restore.PageSize {
				pages, at = pages[1:], 0
				continue
			}
			end = addr&^(aroundBytes-1) + aroundBytes
			at = end
			return addr, true
		}
		return 0, false
	}
}
