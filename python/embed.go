// Package python carries the authors' side of functions, the Python package thaw, so that a program can lay it down where instances run.
package python

import "embed"

// Files has the folder thaw with the package's sources. A folder that contains it belongs on PYTHONPATH.
//
//go:embed thaw/*.py thaw/py.typed
var Files embed.FS
