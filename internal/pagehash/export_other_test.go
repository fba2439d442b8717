//go:build !amd64 || purego

package pagehash

// Portable changes nothing: there is no other way.
func Portable() (undo func()) { return func() {} }
