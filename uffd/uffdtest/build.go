//go:build linux

package uffdtest

import (
	_ "embed"
	"sync"

	"thaw/internal/cprogram"
)

//go:embed target/target.c
var source []byte

// program returns the path of the compiled target. _FORTIFY_SOURCE would refuse the copies that are meant to fault.
var program = sync.OnceValues(func() (string, error) {
	return cprogram.Build("target", source, "-U_FORTIFY_SOURCE")
})
