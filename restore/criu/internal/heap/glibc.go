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

// chunkAt returns the size of the mapping of the chunk that begins at addr, 0 if none does. Unless the place is anchored only
// a chunk with two heads that agree is believed.
//
// A chunk for an aligned block has a second head, at the distance before it that its first word says; the first one
// stays as it was when the chunk was made.
func chunkAt(w *window, addr uint64, anchored bool) (size uint64, err error) {
	var page [pageSize / 8]uint64
	if ok, err := w.words(page[:2], addr, anchored); !ok || err != nil {
		return 0, err
	}
	size = page[1] &^ chunkFlags
	if page[0] != 0 || page[1]&chunkFlags != chunkMapped || !validMapping(w, addr, size) {
		return 0, nil
	}
	if ok, err := w.words(page[:], addr, anchored); !ok || err != nil {
		return 0, err
	}
	for lead := uint64(chunkAlign); lead < pageSize; lead += chunkAlign {
		prev, own := page[lead/8], page[lead/8+1]
		if prev != lead || own&chunkFlags != chunkMapped {
			continue
		}
		// realloc changes the second head only.
		if total := lead + own&^chunkFlags; validMapping(w, addr, total) {
			return total, nil
		}
	}
	if !anchored {
		return 0, nil
	}
	return size, nil
}

func validMapping(w *window, addr, size uint64) bool {
	return size >= minMappedChunk && size%pageSize == 0 && size <= w.end-addr
}
