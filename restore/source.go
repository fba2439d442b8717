package restore

// PageSize is the size of a page in bytes: the unit of images, layouts and faults.
const PageSize = 4096

// A PageSource gives the pages of one image. It is safe for concurrent use, and neither method of the fault path
// (Ready, Load) allocates.
//
// Bytes that it hands out belong to the source, are never written, and stay valid until the source is closed, which
// must not happen before [Session.Run] has returned.
type PageSource interface {
	// Ready returns pages from page on that are at hand and verified, at most limit of them, without waiting for
	// storage. It returns their bytes and their number n. With n > 0 and nil bytes the n pages are zero. n is 0 if
	// the first page is not at hand: Load it.
	Ready(page uint64, limit int) (data []byte, n int)

	// Load is Ready that may wait for storage; on success n is at least 1. The error says which page of the image
	// cannot be had, and why.
	Load(page uint64, limit int) (data []byte, n int, err error)

	// Prefetch says that pages will be wanted soon. It returns at once.
	Prefetch(page, pages uint64)
}
