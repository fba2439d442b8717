//go:build !amd64 || purego

package pagehash

const fast = false

func sumLanes(*[lanes][Size]byte, *[lanes]*[PageSize]byte) { panic("there is no kernel") }
