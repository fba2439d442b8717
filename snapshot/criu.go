package snapshot

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"thaw/checkpoint"
)

// ErrCRIUTooOld says that CRIU is there and cannot do what is needed.
var ErrCRIUTooOld = errors.New("CRIU is too old")

// The oldest CRIU that dumps and restores on kernels of today: older ones stumble over the layout of the vDSO, and write
// the number of pages into another field of their images.
const (
	minCRIUMajor = 4
	minCRIUMinor = 2
)

// checkCRIU returns an error that wraps [ErrCRIUTooOld] or [checkpoint.ErrToolMissing] if CRIU cannot serve.
func checkCRIU(ctx context.Context, tools *checkpoint.Tools) error {
	version, err := tools.CRIUVersion(ctx)
	if err != nil {
		return err
	}
	if !recentEnough(version) {
		return fmt.Errorf("%w: it is version %s, and %d.%d or newer is needed", ErrCRIUTooOld, version, minCRIUMajor, minCRIUMinor)
	}
	return nil
}

// recentEnough reports whether a version such as "4.2.1" will do. One that cannot be read will: a build of one's own.
func recentEnough(version string) bool {
	majorText, rest, _ := strings.Cut(version, ".")
	minorText, _, _ := strings.Cut(rest, ".")
	major, err := strconv.Atoi(majorText)
	if err != nil {
		return true
	}
	minor, err := strconv.Atoi(minorText)
	if err != nil {
		return major > minCRIUMajor
	}
	return major > minCRIUMajor || major == minCRIUMajor && minor >= minCRIUMinor
}
