package heap

// A pool of CPython's obmalloc: 16 KiB, aligned to its size, that begin with a head of 48 bytes and hold blocks of one size.
const (
	poolSize     = 16 << 10
	poolHead     = 48
	blockAlign   = 16
	sizeClasses  = 32
	maxArena     = 1 << 24 // arenas have 1 MiB: 16 TiB of them
	arenaSize    = 1 << 20
	minPoolsSeen = 16 // in a row, for the first to be believed; an arena has 63 or 64
)

// poolsAt returns the pools in a row of which the first begins less than a pool behind addr, an empty range if there are not
// enough of them.
func poolsAt(w *window, addr uint64) (Range, error) {
	first := (addr + poolSize - 1) &^ (poolSize - 1)
	end := first
	for {
		ok, err := isPool(w, end)
		if err != nil {
			return Range{}, err
		}
		if !ok {
			break
		}
		end += poolSize
	}
	if end-first < minPoolsSeen*poolSize {
		return Range{}, nil
	}
	return Range{first, end}, nil
}

// arenaEnd returns where the arena of the last of these pools may end. An arena is not aligned as its pools are, and not all of it need
// have been made into pools.
func arenaEnd(pools Range) Range {
	arenas := (pools.End - pools.Start + arenaSize - 1) / arenaSize
	last := pools.Start + arenas*arenaSize
	return Range{max(pools.End, last-poolSize+pageSize), last}
}

// isPool reports whether a pool that has been used begins at addr.
func isPool(w *window, addr uint64) (bool, error) {
	if addr < w.start || addr >= w.end || w.end-addr < poolSize {
		return false, nil
	}
	// union ref {ptr or uint count}; freeblock; nextpool; prevpool; uint arenaindex, szidx; uint nextoffset, maxnextoffset
	var head [poolHead / 8]uint64
	if ok, err := w.words(head[:], addr, false); !ok || err != nil {
		return false, err
	}
	count, free := head[0]&(1<<32-1), head[1]
	arena, class := head[4]&(1<<32-1), head[4]>>32
	next, last := head[5]&(1<<32-1), head[5]>>32
	if class >= sizeClasses {
		return false, nil
	}
	size := (class + 1) * blockAlign
	switch {
	case last != poolSize-size:
	case count > (poolSize-poolHead)/size:
	case free != 0 && (free < addr+poolHead || free >= addr+poolSize):
	case arena >= maxArena:
	case next < poolHead || next > poolSize || (next-poolHead)%size != 0:
	default:
		return true, nil
	}
	return false, nil
}
