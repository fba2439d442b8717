//go:build !linux

package describe

import (
	"context"
	"os/exec"
)

func sandboxed(context.Context, string) (*exec.Cmd, error) { return nil, ErrNotSupported }

// Main is for Linux.
func Main([]string) int { return 1 }
