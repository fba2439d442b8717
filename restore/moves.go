package restore

import "slices"

// maxMoves bounds the moves that are remembered: of those that leave the old range mapped (MREMAP_DONTUNMAP) no end is ever told.
const maxMoves = 64

// moves are the ranges that a process has moved memory away from, as long as the kernel may still say that it has unmapped them.
//
// It does so in two steps: the move is told, and only when that has been read, that the old range is unmapped. Another thread may move memory of its
// own there meanwhile, which the range is free for, and tell of that first. So what is told late was done before: it took out nothing that
// has come since.
//
// INVARIANT: at most maxMoves, the latest ones.
type moves []span

// from notes that memory has left r.
func (m *moves) from(r span) {
	if len(*m) == maxMoves {
		*m = slices.Delete(*m, 0, 1)
	}
	*m = append(*m, r)
}

// ended reports whether the unmapping of r is the end of a move, and forgets that one. mapped says whether all of a range has memory that was moved
// there: if r is no such end, and another part of a range that memory has left is unmapped, that range was never free, and no end of its move will be told.
func (m *moves) ended(r span, mapped func(span) bool) bool {
	if i := slices.Index(*m, r); i >= 0 {
		*m = slices.Delete(*m, i, i+1)
		return true
	}
	*m = slices.DeleteFunc(*m, func(left span) bool {
		part, ok := left.intersect(r)
		return ok && !mapped(part)
	})
	return false
}
