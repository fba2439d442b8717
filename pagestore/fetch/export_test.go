package fetch

// Objects returns how many objects are remembered.
func Objects(f *Fetcher) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.objects)
}
