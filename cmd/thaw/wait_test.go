package main

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

func TestASignalThatComesBeforeTheWaitIsPassedOn(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	signals, stop := heed()
	defer stop()
	if err := unix.Kill(os.Getpid(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	code, err := waitFor(signals, cmd.Process.Pid)
	if err != nil || code != 128+int(unix.SIGTERM) {
		t.Errorf("exit code %d, %v; want that of SIGTERM", code, err)
	}
}
