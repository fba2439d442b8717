package tracer

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"thaw/restore/tracer/trace"
)

// Mappings returns what a process has mapped, ascending. Processes of others take CAP_SYS_PTRACE to look at.
func Mappings(pid uint32) ([]trace.Region, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	return parseMappings(string(text))
}

// userLimit is where the addresses of programs end. Above it maps lists the vsyscall page, which is the kernel's.
const userLimit = 1 << 56

var errMappings = errors.New("unknown format of /proc/PID/maps")

// parseMappings reads the format of proc_pid_maps(5).
func parseMappings(text string) ([]trace.Region, error) {
	var all []trace.Region
	for line := range strings.Lines(text) {
		r, err := parseMapping(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("%w: %q", errMappings, line)
		}
		if r.End <= userLimit {
			all = append(all, r)
		}
	}
	return all, nil
}

func parseMapping(line string) (r trace.Region, err error) {
	// Five fields, then spaces and a name that may hold spaces itself.
	var fields [5]string
	rest := line
	for i := range fields {
		fields[i], rest, _ = strings.Cut(rest, " ")
	}
	from, to, _ := strings.Cut(fields[0], "-")
	if r.Start, err = strconv.ParseUint(from, 16, 64); err != nil {
		return r, err
	}
	if r.End, err = strconv.ParseUint(to, 16, 64); err != nil {
		return r, err
	}
	if r.Start >= r.End || (r.Start|r.End)%trace.PageSize != 0 || len(fields[1]) != 4 {
		return r, errMappings
	}
	for i, bit := range []trace.Access{trace.Readable, trace.Writable, trace.Executable, trace.Shared} {
		if fields[1][i] == "rwxs"[i] {
			r.Access |= bit
		}
	}
	r.Name = strings.TrimLeft(rest, " ")
	return r, nil
}
