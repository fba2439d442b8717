//go:build linux && !amd64

package tracer

import (
	"fmt"
	"runtime"

	"github.com/cilium/ebpf"
)

// loadProgram is generated for the architectures whose page faults the program understands.
func loadProgram() (*ebpf.CollectionSpec, error) {
	return nil, fmt.Errorf("%w: the tracer is made for amd64 so far, not for %s", ErrNotSupported, runtime.GOARCH)
}
