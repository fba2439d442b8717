package main

import (
	"context"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

func TestASignalThatComesBeforeTheWaitIsPassedOn(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // as the first signal does
	code, err := waitFor(ctx, cmd.Process.Pid)
	if err != nil || code != 128+int(unix.SIGTERM) {
		t.Errorf("exit code %d, %v; want that of SIGTERM", code, err)
	}
}
