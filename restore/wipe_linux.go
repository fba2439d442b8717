package restore

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
)

// wipedOnFork returns the ranges of a process that a child which it forks sees as zeros (MADV_WIPEONFORK). Such advice raises no
// event, so what the process has given since it was frozen is known to the kernel only. It costs a walk through the page tables,
// about what the fork itself costs. ok is false if it cannot be told.
func wipedOnFork(pid int) (wiped []span, ok bool) {
	if pid == 0 {
		return nil, false
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return nil, false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	var here span
	seen := false
	for lines.Scan() {
		line := lines.Bytes()
		if flags, found := bytes.CutPrefix(line, []byte("VmFlags:")); found {
			seen = true
			if slices.ContainsFunc(bytes.Fields(flags), func(f []byte) bool { return string(f) == "wf" }) {
				wiped = append(wiped, here)
			}
			continue
		}
		if r, found := parseRange(line); found {
			here = r
		}
	}
	// A process that is gone has an empty file.
	return wiped, seen && lines.Err() == nil
}

// parseRange reads the line that begins a mapping: "start-end perms ...", in hexadecimal.
func parseRange(line []byte) (r span, ok bool) {
	addresses, _, _ := bytes.Cut(line, []byte(" "))
	from, to, ok := bytes.Cut(addresses, []byte("-"))
	if !ok {
		return span{}, false
	}
	start, err := strconv.ParseUint(string(from), 16, 64)
	if err != nil {
		return span{}, false
	}
	end, err := strconv.ParseUint(string(to), 16, 64)
	return span{start, end}, err == nil && start < end
}
