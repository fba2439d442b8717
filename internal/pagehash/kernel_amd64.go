//go:build !purego

package pagehash

import "golang.org/x/sys/cpu"

// shaInstructions is the bit of EBX for SHA256RNDS2, SHA256MSG1 and SHA256MSG2.
const shaInstructions = 1 << 29

// fast says whether the processor has what sumLanes needs. AVX2 stands for the vector instructions, which are older, and for the
// system's consent; and where it is known, there is a leaf 7 to ask.
var fast = cpu.X86.HasAVX2 && leaf7EBX()&shaInstructions != 0

// leaf7EBX returns EBX of CPUID with EAX 7 and ECX 0: which extensions there are.
func leaf7EBX() uint32

// sumLanes hashes four pages.
//
//go:noescape
func sumLanes(digests *[lanes][Size]byte, pages *[lanes]*[PageSize]byte)
