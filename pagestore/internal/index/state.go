package index

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"thaw/internal/durable"
)

// bbolt has no checksums on its pages, and what it does with a damaged one cannot always be caught: it scans some in
// goroutines of its own and makes pointers of what it reads. So the state file says how the database was left:
//
//	clean SIZE XXH64     closed and synced; the file must be just that
//	dirty BOOT-ID        being written, without syncs
//
// After a crash of the process alone, a database is as its last transaction left it, because the page cache lives on; so a
// dirty one is good for the rest of that boot, and worth keeping: building it anew takes a minute for 15 million pages.
const (
	stateName   = "state"
	maxStateLen = 256
)

// checkState returns errDamaged unless the database is as its writer left it. Hashing the file also reads it into memory,
// where look-ups want it.
func checkState(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, stateName))
	if errors.Is(err, fs.ErrNotExist) || len(text) > maxStateLen {
		return fmt.Errorf("%w: its state is not known", errDamaged)
	} else if err != nil {
		return err
	}
	if string(text) == dirtyState() {
		return nil
	}
	if strings.HasPrefix(string(text), "dirty") {
		return fmt.Errorf("%w: the machine went down while it was written", errDamaged)
	}
	now, err := cleanState(dir)
	if err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	if now != string(text) {
		return fmt.Errorf("%w: it is %q, was left %q", errDamaged, now, text)
	}
	return nil
}

func markDirty(dir string) error {
	return durable.Replace(durable.Disk, filepath.Join(dir, stateName), []byte(dirtyState()))
}

// markClean notes the state of the database, which must be synced.
func markClean(dir string) error {
	state, err := cleanState(dir)
	if err != nil {
		return err
	}
	return durable.Replace(durable.Disk, filepath.Join(dir, stateName), []byte(state))
}

func dirtyState() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		id = []byte("unknown " + time.Now().String()) // equals nothing: the safe answer
	}
	return "dirty " + string(id)
}

func cleanState(dir string) (string, error) {
	f, err := os.Open(filepath.Join(dir, fileName))
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := xxhash.New()
	size, err := io.CopyBuffer(struct{ io.Writer }{h}, f, make([]byte, 1<<20))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("clean %d %016x\n", size, h.Sum64()), nil
}
