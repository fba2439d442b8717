package cli

import (
	"errors"
	"io/fs"
	"log/slog"

	"thaw/pagestore"
)

// keepPacks is how many packs stay open between restores: 16 GiB of address space if they are full.
const keepPacks = 64

// StoreOptions returns the options with which commands open stores.
func StoreOptions(log *slog.Logger) pagestore.Options {
	return pagestore.Options{KeepPacks: keepPacks, Logger: log}
}

// OpenStore opens the store in dir; where there is nothing yet it makes one.
func OpenStore(dir string, log *slog.Logger) (*pagestore.Store, error) {
	opts := StoreOptions(log)
	store, err := pagestore.Open(dir, &opts)
	if !errors.Is(err, pagestore.ErrNotStore) {
		return store, err
	}
	if err := MakeStore(dir); err != nil {
		return nil, err
	}
	return pagestore.Open(dir, &opts)
}

// MakeStore makes a store in dir unless there is one.
func MakeStore(dir string) error {
	// What is not empty and no store is refused here.
	made, err := pagestore.Create(dir)
	if errors.Is(err, fs.ErrExist) {
		return nil // perhaps somebody else made it just now
	}
	if err != nil {
		return err
	}
	return made.Close()
}
