package pagestore

// Aside says that what is done with the snapshot from here on is no use of it, as a restore is: it does not count for Evict, and a packed copy of its
// working set that is read from the disk meanwhile leaves the page cache again when the snapshot is closed. It has to be called before Image.
func (s *Snapshot) Aside() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.aside = true
}

// closeHot closes the hot file. One that was read aside, and of which hardly anything was in memory before, is dropped from there: but for pages that
// somebody else has mapped.
func (im *Image) closeHot() {
	switch {
	case im.hot.file == nil:
	case im.hot.drop:
		im.hot.file.CloseAndDrop() // it fails as little as the other one
	default:
		im.hot.file.Close() // munmap of a whole mapping does not fail
	}
}
