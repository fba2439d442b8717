//go:build linux

package uffdtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"thaw/uffd"
)

// Await returns the messages that are queued on fd, after waiting for the first one. It fails the test if none
// comes.
func Await(tb testing.TB, fd *uffd.FD) []uffd.Message {
	tb.Helper()
	deadline := time.Now().Add(patience)
	buf := make([]uffd.Message, 64)
	for {
		n, err := fd.ReadMessages(buf)
		if err != nil {
			tb.Fatal(err)
		}
		if n > 0 {
			return buf[:n]
		}
		wait := time.Until(deadline)
		if wait <= 0 {
			tb.Fatal("no message from userfaultfd")
		}
		events := []unix.PollFd{{Fd: int32(fd.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(events, int(wait.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			tb.Fatal(err)
		}
	}
}

// Resident says of each page of r whether the target has it in memory or in swap. It looks from outside, so
// nothing faults. A page that was never installed is not resident; one that Poison has marked counts as
// resident, because the kernel keeps the mark in the place of a swap entry.
func (t *Target) Resident(r uffd.Range) []bool {
	t.tb.Helper()
	file, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", t.pid))
	if err != nil {
		t.tb.Fatal(err)
	}
	defer file.Close()
	entries := make([]byte, r.Pages()*8)
	if _, err := file.ReadAt(entries, int64(r.Start/uffd.PageSize*8)); err != nil && err != io.EOF {
		t.tb.Fatal(err)
	}
	// Documentation/admin-guide/mm/pagemap.rst: bit 63 is present, bit 62 is swapped.
	resident := make([]bool, r.Pages())
	for i := range resident {
		resident[i] = binary.NativeEndian.Uint64(entries[8*i:])>>62 != 0
	}
	return resident
}

// blocked describes where in the kernel the threads of the target sleep, for the message of a test that waited
// in vain.
func (t *Target) blocked() string {
	var s strings.Builder
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", t.pid))
	for _, task := range tasks {
		where, err := os.ReadFile(task + "/wchan")
		if err != nil || strings.HasPrefix(string(where), "futex") {
			continue // ended, or an idle worker
		}
		call, _ := os.ReadFile(task + "/syscall")
		fmt.Fprintf(&s, "\nthread %s sleeps in %s, system call %s", filepath.Base(task), where, strings.TrimSpace(string(call)))
	}
	return s.String()
}
