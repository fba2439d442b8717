//go:build linux && (amd64 || arm64)

package uffd

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The arguments of the ioctls, from include/uapi/linux/userfaultfd.h.

type apiArg struct{ api, features, ioctls uint64 }

type rangeArg struct{ start, length uint64 }

type registerArg struct {
	rangeArg
	mode, ioctls uint64
}

// copyArg holds the source as a pointer and not as a number, so that the garbage collector keeps the source
// alive, and so that the pointer is corrected if the source lies on a stack that has to grow.
type copyArg struct {
	dst          uint64
	src          unsafe.Pointer
	length, mode uint64
	done         int64
}

// installArg serves zeropage, continue and poison, which differ only in the name of the last field.
type installArg struct {
	rangeArg
	mode uint64
	done int64
}

type moveArg struct {
	dst, src, length, mode uint64
	done                   int64
}

type writeProtectArg struct {
	rangeArg
	mode uint64
}

// The kernel encodes the size of the argument in the number of the ioctl; a struct of another size would be
// another ioctl. Each line compiles only if the size is right.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(apiArg{})-24]
	_ = [1]struct{}{}[unsafe.Sizeof(rangeArg{})-16]
	_ = [1]struct{}{}[unsafe.Sizeof(registerArg{})-32]
	_ = [1]struct{}{}[unsafe.Sizeof(copyArg{})-40]
	_ = [1]struct{}{}[unsafe.Sizeof(installArg{})-32]
	_ = [1]struct{}{}[unsafe.Sizeof(moveArg{})-40]
	_ = [1]struct{}{}[unsafe.Sizeof(writeProtectArg{})-24]
	_ = [1]struct{}{}[unsafe.Sizeof(Message{})-messageSize]
)

// apiVersion is UFFD_API.
const apiVersion = 0xaa

// The parts of an ioctl number, from include/uapi/asm-generic/ioctl.h, which amd64 and arm64 use.
const (
	iocRead      = 2 << 30
	iocReadWrite = 3 << 30
	iocSize      = 16
	iocType      = 0xaa << 8
)

const (
	ioAPI          = iocReadWrite | unsafe.Sizeof(apiArg{})<<iocSize | iocType | nrAPI
	ioRegister     = iocReadWrite | unsafe.Sizeof(registerArg{})<<iocSize | iocType | nrRegister
	ioUnregister   = iocRead | unsafe.Sizeof(rangeArg{})<<iocSize | iocType | nrUnregister
	ioWake         = iocRead | unsafe.Sizeof(rangeArg{})<<iocSize | iocType | nrWake
	ioCopy         = iocReadWrite | unsafe.Sizeof(copyArg{})<<iocSize | iocType | nrCopy
	ioZeropage     = iocReadWrite | unsafe.Sizeof(installArg{})<<iocSize | iocType | nrZeropage
	ioMove         = iocReadWrite | unsafe.Sizeof(moveArg{})<<iocSize | iocType | nrMove
	ioWriteProtect = iocReadWrite | unsafe.Sizeof(writeProtectArg{})<<iocSize | iocType | nrWriteProtect
	ioContinue     = iocReadWrite | unsafe.Sizeof(installArg{})<<iocSize | iocType | nrContinue
	ioPoison       = iocReadWrite | unsafe.Sizeof(installArg{})<<iocSize | iocType | nrPoison

	// ioNew is ioctl 0, the only one of /dev/userfaultfd; its argument is a number.
	ioNew = iocType
)

// retry makes a system call again until no signal interrupts it. Every system call of this package that a
// signal can interrupt goes through here. The call itself stays in the closure, because only in the argument
// list of unix.Syscall does the compiler keep a pointer valid that is converted to a number.
func retry(call func() (uintptr, syscall.Errno)) (uintptr, syscall.Errno) {
	for {
		n, errno := call()
		if errno != unix.EINTR {
			return n, errno
		}
	}
}

// ioctl hands arg, which must point to the struct that op takes, to the kernel.
func ioctl(fd int, op uintptr, arg unsafe.Pointer) syscall.Errno {
	_, errno := retry(func() (uintptr, syscall.Errno) {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), op, uintptr(arg))
		return n, errno
	})
	return errno
}

// ioctlRaw is ioctl without telling the Go scheduler: see rawLimit.
func ioctlRaw(fd int, op uintptr, arg unsafe.Pointer) syscall.Errno {
	_, errno := retry(func() (uintptr, syscall.Errno) {
		n, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), op, uintptr(arg))
		return n, errno
	})
	return errno
}

// newUserfaultfd is userfaultfd(2).
func newUserfaultfd(flags int) (int, error) {
	fd, errno := retry(func() (uintptr, syscall.Errno) {
		n, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, uintptr(flags), 0, 0)
		return n, errno
	})
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// newFromDevice asks an open /dev/userfaultfd for a descriptor.
func newFromDevice(device, flags int) (int, error) {
	fd, errno := retry(func() (uintptr, syscall.Errno) {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(device), ioNew, uintptr(flags))
		return n, errno
	})
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// negotiate is UFFDIO_API. It returns what the kernel offers, whatever was asked for.
func negotiate(fd int, want Features) (Features, Ioctls, syscall.Errno) {
	arg := apiArg{api: apiVersion, features: uint64(want)}
	errno := ioctl(fd, ioAPI, unsafe.Pointer(&arg))
	return Features(arg.features), Ioctls(arg.ioctls), errno
}

func register(fd int, r Range, mode Mode) (Ioctls, syscall.Errno) {
	arg := registerArg{rangeArg: rangeArg{r.Start, r.Len()}, mode: uint64(mode)}
	errno := ioctl(fd, ioRegister, unsafe.Pointer(&arg))
	return Ioctls(arg.ioctls), errno
}

// onRange makes the ioctls that take a range and nothing else.
func onRange(fd int, op uintptr, r Range) syscall.Errno {
	arg := rangeArg{r.Start, r.Len()}
	return ioctl(fd, op, unsafe.Pointer(&arg))
}

// rawLimit is the size in bytes up to which Copy does not tell the Go scheduler that it enters the kernel.
//
// A call that the scheduler knows of gives up its Go processor if the runtime's monitor finds the call in the
// kernel, and then queues for one. A demand fault must not wait in that queue while the target sleeps, and a bulk copier
// pays for it with every call: two threads that fill one address space reached 3.3 GB/s with it and 4.3 GB/s without, in
// calls of 256 KiB (2-core VM, Linux 6.18, median of restore's BenchmarkFill).
//
// The price is that the runtime can neither stop this thread nor use its processor meanwhile, 150 us for the largest
// resident source. That is why the limit, and why sources have to be at hand: see Copy.
const rawLimit = 512 << 10

func copyPages(fd int, dst uint64, src []byte, flags CopyFlags) Result {
	arg := copyArg{dst: dst, src: unsafe.Pointer(unsafe.SliceData(src)), length: uint64(len(src)), mode: uint64(flags)}
	var errno syscall.Errno
	if len(src) <= rawLimit {
		errno = ioctlRaw(fd, ioCopy, unsafe.Pointer(&arg))
	} else {
		errno = ioctl(fd, ioCopy, unsafe.Pointer(&arg))
	}
	runtime.KeepAlive(src)
	return newResult(errno, arg.done, arg.length)
}

// install makes the ioctls that give pages content without taking it from a buffer.
func install(fd int, op uintptr, r Range, mode uint64) Result {
	arg := installArg{rangeArg: rangeArg{r.Start, r.Len()}, mode: mode}
	errno := ioctl(fd, op, unsafe.Pointer(&arg))
	return newResult(errno, arg.done, arg.length)
}

func movePages(fd int, dst, src, length uint64, flags MoveFlags) Result {
	arg := moveArg{dst: dst, src: src, length: length, mode: uint64(flags)}
	errno := ioctl(fd, ioMove, unsafe.Pointer(&arg))
	return newResult(errno, arg.done, arg.length)
}

func writeProtect(fd int, r Range, mode uint64) syscall.Errno {
	arg := writeProtectArg{rangeArg: rangeArg{r.Start, r.Len()}, mode: mode}
	return ioctl(fd, ioWriteProtect, unsafe.Pointer(&arg))
}

// readMessages reads as many messages as are queued and fit, straight into buf.
func readMessages(fd int, buf []Message) (bytes int, errno syscall.Errno) {
	n, errno := retry(func() (uintptr, syscall.Errno) {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf))*messageSize)
		return n, errno
	})
	runtime.KeepAlive(buf)
	return int(n), errno
}

// addressOf returns where a mapping lies that the garbage collector does not know.
func addressOf(mapping []byte) uint64 {
	return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mapping))))
}
