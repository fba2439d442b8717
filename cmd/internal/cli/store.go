package cli

import (
	"errors"
	"io/fs"
	"log/slog"

	"thaw/pagestore"
)

// keepPacks is how many packs stay open between restores: 16 GiB of address space if they are full.
const keepPacks = 64

// OpenStore opens the store in dir; where there is nothing yet it makes one.
func OpenStore(dir string, log *slog.Logger) (*pagestore.Store, error) {
	opts := &pagestore.Options{KeepPacks: keepPacks, Logger: log}
	store, err := pagestore.Open(dir, opts)
	if !errors.Is(err, pagestore.ErrNotStore) {
		return store, err
	}
	// What is not empty and no store is refused here.
	made, createErr := pagestore.Create(dir)
	if errors.Is(createErr, fs.ErrExist) {
		// Somebody else made it just now.
		return pagestore.Open(dir, opts)
	}
	if createErr != nil {
		return nil, createErr
	}
	if err := made.Close(); err != nil {
		return nil, err
	}
	return pagestore.Open(dir, opts)
}
