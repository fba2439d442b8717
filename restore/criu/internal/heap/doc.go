// Package heap recognizes the memory of allocators that never expect zeros from madvise(2).
//
// A page of a private file mapping that the process gives up with MADV_DONTNEED reads as the file again, where anonymous
// memory would read as zeros. So anonymous memory may be turned into a file mapping only where nobody does that and counts
// on the zeros. Most allocators do (jemalloc, mimalloc, Go, the JVM); these two do not:
//
//   - glibc's malloc. It gives the inside of free chunks back with MADV_DONTNEED, from malloc_trim only, and expects nothing
//     of them afterwards. Chunks with a mapping of their own it returns with munmap, the end of the brk heap with brk.
//     Its other arenas are left out: they shrink by madvise, and grow again.
//   - CPython's obmalloc. It returns arenas with munmap.
//
// What belongs to them is recognized by their own bookkeeping, every chunk or pool of it. What is not recognized is left
// alone; it is merely restored in another way.
//
// Sources: glibc's malloc/malloc.c (2.26 to 2.41: struct malloc_chunk, mmap_chunk, mremap_chunk, systrim, mtrim); CPython's
// Include/internal/pycore_obmalloc.h (3.10 to 3.14: struct pool_header, 16 KiB pools).
package heap
