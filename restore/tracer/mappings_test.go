//go:build linux

package tracer

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/restore/tracer/trace"
)

func TestMappingsAreParsed(t *testing.T) {
	const text = `55d000000000-55d000001000 r-xp 00002000 fe:00 1234                       /usr/bin/with a name
55d000001000-55d000003000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000001000 rw-s 00000000 00:05 77                         /memfd:x (deleted)
7f0000002000-7f0000004000 ---p 00000000 00:00 0 
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`
	got, err := parseMappings(text)
	if err != nil {
		t.Fatal(err)
	}
	want := []trace.Region{
		{Start: 0x55d000000000, End: 0x55d000001000, Access: trace.Readable | trace.Executable, Name: "/usr/bin/with a name"},
		{Start: 0x55d000001000, End: 0x55d000003000, Access: trace.Readable | trace.Writable, Name: "[heap]"},
		{Start: 0x7f0000000000, End: 0x7f0000001000, Access: trace.Readable | trace.Writable | trace.Shared, Name: "/memfd:x (deleted)"},
		{Start: 0x7f0000002000, End: 0x7f0000004000},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, bad := range []string{"nonsense\n", "1000-2000\n", "2000-1000 r--p 0 0:0 0\n", "1001-2000 r--p 0 0:0 0\n", "1000-2000 r- 0 0:0 0\n"} {
		if _, err := parseMappings(bad); err == nil {
			t.Errorf("%q is parsed", bad)
		}
	}
}
