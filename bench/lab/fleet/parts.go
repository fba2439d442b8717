package fleet

import (
	"fmt"
	"os"
	"path/filepath"

	"thaw/bench/lab"
)

// FindS3 returns the path of versitygw: $THAW_S3_SERVER, else the one that scripts/setup-s3.sh builds, relative to the repository's root as the working
// folder. The error wraps [lab.ErrPartMissing].
func FindS3() (string, error) {
	path := os.Getenv("THAW_S3_SERVER")
	if path == "" {
		deps := os.Getenv("THAW_DEPS")
		if deps == "" {
			deps = ".deps"
		}
		path = filepath.Join(deps, "bin", "versitygw")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: the S3 server versitygw: %w: run `make test-deps` in the root of the repository, and this program from there", lab.ErrPartMissing, err)
	}
	return path, nil
}
