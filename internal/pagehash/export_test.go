package pagehash

// Fast reports whether the kernel is used.
func Fast() bool { return fast }
