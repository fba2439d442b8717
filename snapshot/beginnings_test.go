package snapshot

import (
	"os"
	"testing"
)

func TestReadBeginningsFindsTheFilesThatAreMapped(t *testing.T) {
	if n := readBeginnings(os.Getpid()); n == 0 {
		t.Error("no file that this process maps was read: it maps at least its own program")
	}
	if n := readBeginnings(1 << 30); n != 0 {
		t.Errorf("%d files of a process that does not exist", n)
	}
}
