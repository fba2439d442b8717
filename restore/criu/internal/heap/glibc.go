package heap

// The head of a chunk of glibc's malloc: two words, the size of the previous chunk if that is free, and the chunk's own
// size with three flags.
const (
	chunkPrevInUse = 1 << 0
	chunkMapped    = 1 << 1 // it has a mapping of its own
	chunkOther     = 1 << 2 // it belongs to another arena than the main one
	chunkFlags     = chunkPrevInUse | chunkMapped | chunkOther

	minChunk   = 32
	chunkAlign = 16
)

// minMappedChunk is the smallest chunk with a mapping of its own that is looked for. glibc makes them from 128 KiB on; below
// some hundred KiB there is nothing to gain.
const minMappedChunk = 256 << 10

// isMainArena walks the chunks of a brk heap.
func isMainArena(w *window) (ok bool, err error) {
	var head [2]uint64
	var before uint64 // size of the chunk before
	for at := w.start; at < w.end; at += before {
		if ok, err := w.words(head[:], at, false); !ok || err != nil {
			return false, err
		}
		prev, size, flags := head[0], head[1]&^chunkFlags, head[1]&chunkFlags
		switch {
		case size < minChunk || size%chunkAlign != 0 || size > w.end-at:
			return false, nil
		case flags&(chunkMapped|chunkOther) != 0:
			return false, nil
		case flags&chunkPrevInUse == 0 && prev != before:
			return false, nil // the chunk before is free, and then its size stands here
		}
		before = size
	}
	return true, nil
}

// maxAlign bounds the alignment of blocks that are looked for.
const maxAlign = 1 << 40

// chunkAt returns the size of the mapping of the chunk that begins at addr, 0 if none does, and whether its block is one that malloc
// itself would make: blocks that are aligned to pages are asked for by those who mean to use madvise.
//
// Unless the place is anchored only a chunk with two heads that agree is believed. A chunk for an aligned block has a second head,
// right before the block, whose first word is the distance between the two; the first one stays as it was when the chunk was made,
// so its size may be out of date.
func chunkAt(w *window, addr uint64, anchored bool) (size uint64, plain bool, err error) {
	var head [2]uint64
	if ok, err := w.words(head[:], addr, anchored); !ok || err != nil {
		return 0, false, err
	}
	first := head[1] &^ chunkFlags
	if head[0] != 0 || head[1]&chunkFlags != chunkMapped || first < minMappedChunk || first%pageSize != 0 {
		return 0, false, nil
	}
	for align := uint64(chunkAlign * 2); align <= maxAlign; align *= 2 {
		block := (addr + chunkAlign + align - 1) &^ (align - 1)
		lead := block - chunkAlign - addr
		if lead == 0 {
			continue
		}
		ok, err := w.words(head[:], addr+lead, anchored && lead < pageSize)
		if err != nil {
			return 0, false, err
		}
		if !ok {
			break
		}
		if head[0] == lead && head[1]&chunkFlags == chunkMapped && validMapping(w, addr, lead+head[1]&^chunkFlags) {
			return lead + head[1]&^chunkFlags, block%pageSize != 0, nil
		}
	}
	if !anchored || !validMapping(w, addr, first) {
		return 0, false, nil
	}
	return first, true, nil
}

func validMapping(w *window, addr, size uint64) bool {
	return size >= minMappedChunk && size%pageSize == 0 && size <= w.end-addr
}
