//go:build !purego

package pagehash

// Portable has crypto/sha256 hash everything until undo is called.
func Portable() (undo func()) {
	was := fast
	fast = false
	return func() { fast = was }
}
