package perfswitch

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Hold turns the accounting on until the file is closed. It needs no privilege where perf_event_paranoid is 2 or less; where it fails, breakpoints
// are as slow as ever, and nothing else is the matter.
func Hold() (*os.File, error) {
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Bits: unix.PerfBitDisabled | unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv,
	}
	const thisThread, anyCPU, noGroup = 0, -1, -1
	fd, err := unix.PerfEventOpen(&attr, thisThread, anyCPU, noGroup, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open a performance event: %w", err)
	}
	return os.NewFile(uintptr(fd), "perf_event"), nil
}
