package snapshot

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"thaw/checkpoint"
	"thaw/pagestore"
)

// heldPacks are the packs that processes have mapped, held so that nobody can take them away.
type heldPacks []*pagestore.PackReader

// holdPacks opens the packs that a process and its descendants have mapped in place of memory: they were restored, and what they have
// not written since is in those packs only. It fails if an import into the namespace would find one missing.
func holdPacks(store *pagestore.Store, namespace string, pid int) (held heldPacks, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, held.close())
		}
	}()
	seen := make(map[string]bool)
	for _, p := range append([]int{pid}, checkpoint.Descendants(pid)...) {
		paths, err := mappedFiles(p)
		if err != nil {
			continue // it has ended, or is not ours to look into, which CRIU will say better
		}
		for _, path := range paths {
			name, deleted := strings.CutSuffix(filepath.Base(path), " (deleted)")
			if seen[name] {
				continue
			}
			seen[name] = true
			pack, err := store.PackFile(namespace, name)
			switch {
			case err != nil:
				return held, fmt.Errorf("process %d was restored and has memory mapped from %s: %w: freeze it into the namespace that "+
					"it was restored from", p, path, err)
			case pack == nil:
			case deleted:
				return append(held, pack), fmt.Errorf("process %d was restored and has memory mapped from %s: %w: it was collected when its snapshot "+
					"was removed, and CRIU cannot freeze a process that maps a file without a name", p, path, pagestore.ErrMissingPack)
			default:
				held = append(held, pack)
			}
		}
	}
	return held, nil
}

// mappedFiles returns the paths that the kernel shows for the files that a process has mapped.
func mappedFiles(pid int) ([]string, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var paths []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if _, path, ok := strings.Cut(lines.Text(), " /"); ok {
			paths = append(paths, "/"+path)
		}
	}
	return paths, nil
}

func (h heldPacks) close() error {
	var errs []error
	for _, p := range h {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}
