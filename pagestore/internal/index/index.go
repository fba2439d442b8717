package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"thaw/pagestore/internal/pack"
)

const (
	fileName = "pages.bolt"

	// batchKeys is how many sorted keys one transaction inserts. All keys of an import in one would keep every leaf that
	// it touches on the heap, 300 MB for 400,000 keys; this many keep it to some 30 MB.
	batchKeys = 32 << 10
	// batchPacks is how many packs are sorted together: 40 bytes for each page, 21 MB for full packs.
	batchPacks = 8

	// lockWait bounds the wait for bbolt's own lock. The store's lock keeps writers apart, so nobody should hold it.
	lockWait = 5 * time.Second

	dirMode  = 0o700
	fileMode = 0o600
)

// The buckets. The version is part of the names, so that another layout starts empty.
var (
	bucketPages = []byte("pages.1") // SHA-256 -> pack number, page; both 32 bits, little endian
	bucketPacks = []byte("packs.1") // pack number, big endian -> pack ID, pages
)

// errDamaged: the database cannot be used and should be deleted.
var errDamaged = errors.New("damaged index")

// Location is where a page is stored.
type Location struct {
	Pack pack.ID
	Page uint32
}

// Index is an open index. Add must not run while a Reader is open; otherwise it is safe for concurrent use.
type Index struct {
	dir string
	db  *bolt.DB
	// live are the packs that exist, by the number that entries give them. Rows of packs that are gone stay in the
	// database, because entries still name them; dead counts those entries, pages all.
	live        map[uint32]pack.ID
	known       map[pack.ID]bool
	next        uint32
	pages, dead uint64
	missing     []pack.ID
	// damaged is set when a look-up found the database unusable; Close deletes it then.
	damaged atomic.Bool
}

// Open opens the index in the folder dir, which it makes if need be. Entries about packs that are not in present are
// ignored. Missing returns the packs in present that should be added. An index that is damaged, or mostly about packs
// that are gone, is deleted and begun anew.
func Open(dir string, present []pack.ID) (*Index, error) {
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	x, err := open(dir, present)
	switch {
	case err == nil && x.dead <= x.pages/2:
		return x, nil
	case err == nil:
		if err := x.Close(); err != nil {
			return nil, err
		}
	case !errors.Is(err, errDamaged):
		return nil, fmt.Errorf("open index: %w", err)
	}
	if err := begin(dir); err != nil {
		return nil, fmt.Errorf("begin index anew: %w", err)
	}
	if x, err = open(dir, present); err != nil {
		return nil, fmt.Errorf("open new index: %w", err)
	}
	return x, nil
}

// begin deletes what an index consists of, but for the note that it is being written.
func begin(dir string) error {
	if err := os.Remove(filepath.Join(dir, fileName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return markDirty(dir)
}

func open(dir string, present []pack.ID) (*Index, error) {
	if err := checkState(dir); err != nil {
		return nil, err
	}
	x := &Index{dir: dir, live: make(map[uint32]pack.ID), known: make(map[pack.ID]bool)}
	err := guard(func() (err error) {
		x.db, err = bolt.Open(filepath.Join(dir, fileName), fileMode, &bolt.Options{
			Timeout:      lockWait,
			NoSync:       true, // Add syncs once
			NoGrowSync:   true,
			FreelistType: bolt.FreelistMapType,
			NoStatistics: true,
		})
		if err != nil {
			return err
		}
		return x.readPacks(present)
	})
	if err != nil {
		return nil, errors.Join(err, x.closeDB())
	}
	return x, nil
}

// guard runs fn on the database and makes errDamaged of what bbolt does when it meets a damaged file: it panics, reads
// beyond the file, or returns an error that is not the system's. checkState keeps damages away that guard could not
// deal with.
func guard(fn func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDamaged, r)
		}
	}()
	err = fn()
	if errno := syscall.Errno(0); err == nil || errors.As(err, &errno) || errors.Is(err, bolterrors.ErrTimeout) {
		return err
	}
	return fmt.Errorf("%w: %w", errDamaged, err)
}

// readPacks reads the table of packs.
func (x *Index) readPacks(present []pack.ID) error {
	exists := make(map[pack.ID]bool, len(present))
	for _, id := range present {
		exists[id] = true
	}
	err := x.db.View(func(tx *bolt.Tx) error {
		packs := tx.Bucket(bucketPacks)
		if packs == nil {
			return nil // new, or of another version
		}
		return packs.ForEach(func(k, v []byte) error {
			if len(k) != 4 || len(v) != len(pack.ID{})+4 {
				return errors.New("malformed row of a pack")
			}
			number, id := binary.BigEndian.Uint32(k), pack.ID(v[:32])
			pages := uint64(binary.LittleEndian.Uint32(v[32:]))
			x.next = max(x.next, number+1)
			x.pages += pages
			if exists[id] {
				x.live[number], x.known[id] = id, true
			} else {
				x.dead += pages
			}
			return nil
		})
	})
	for _, id := range present {
		if !x.known[id] {
			x.missing = append(x.missing, id)
		}
	}
	return err
}

// Missing returns the packs given to Open that the index did not know then.
func (x *Index) Missing() []pack.ID { return x.missing }

// entry is a row of the pages bucket before it is inserted.
type entry struct {
	digest pack.Digest
	value  [8]byte
}

// Add enters the pages of packs, each given by a function so that their tables need not be in memory at the same time.
// An entry that is there is replaced. After an error the index is still usable but may lack entries.
func (x *Index) Add(ids []pack.ID, footer func(pack.ID) (*pack.Footer, error)) error {
	if len(ids) == 0 {
		return nil
	}
	if err := markDirty(x.dir); err != nil {
		return fmt.Errorf("mark index: %w", err)
	}
	for batch := range slices.Chunk(ids, batchPacks) {
		if err := x.addBatch(batch, footer); err != nil {
			return fmt.Errorf("add to index: %w", err)
		}
	}
	if err := guard(x.db.Sync); err != nil {
		return fmt.Errorf("sync index: %w", err)
	}
	if err := markClean(x.dir); err != nil {
		return fmt.Errorf("mark index: %w", err)
	}
	return nil
}

func (x *Index) addBatch(ids []pack.ID, footer func(pack.ID) (*pack.Footer, error)) error {
	var entries []entry
	var rows []*pack.Footer
	for i, id := range ids {
		f, err := footer(id)
		if err != nil {
			return err
		}
		rows = append(rows, f)
		for page := range uint32(f.Pages()) {
			e := entry{digest: f.Digest(page)}
			binary.LittleEndian.PutUint32(e.value[:], x.next+uint32(i))
			binary.LittleEndian.PutUint32(e.value[4:], page)
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return bytes.Compare(a.digest[:], b.digest[:]) })
	for part := range slices.Chunk(entries, batchKeys) {
		if err := guard(func() error { return x.db.Update(func(tx *bolt.Tx) error { return putPages(tx, part) }) }); err != nil {
			return err
		}
	}
	// The rows go last: a pack without one is added again.
	return guard(func() error { return x.db.Update(func(tx *bolt.Tx) error { return x.putPacks(tx, rows) }) })
}

func putPages(tx *bolt.Tx, entries []entry) error {
	pages, err := tx.CreateBucketIfNotExists(bucketPages)
	if err != nil {
		return err
	}
	for i := range entries {
		if err := pages.Put(entries[i].digest[:], entries[i].value[:]); err != nil {
			return err
		}
	}
	return nil
}

func (x *Index) putPacks(tx *bolt.Tx, footers []*pack.Footer) error {
	packs, err := tx.CreateBucketIfNotExists(bucketPacks)
	if err != nil {
		return err
	}
	for _, f := range footers {
		key := binary.BigEndian.AppendUint32(nil, x.next)
		value := binary.LittleEndian.AppendUint32(f.ID[:], uint32(f.Pages()))
		if err := packs.Put(key, value); err != nil {
			return err
		}
		x.live[x.next], x.known[f.ID] = f.ID, true
		x.next++
	}
	return nil
}

// Reader looks up pages in the index as it was when the reader was made. It is for one goroutine.
type Reader struct {
	index *Index
	tx    *bolt.Tx
	pages *bolt.Bucket // nil in an empty index
}

// NewReader returns a reader, which must be closed before Add or Close of the index.
func (x *Index) NewReader() (*Reader, error) {
	r := &Reader{index: x}
	err := guard(func() (err error) {
		if r.tx, err = x.db.Begin(false); err == nil {
			r.pages = r.tx.Bucket(bucketPages)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	return r, nil
}

// Lookup returns where a page with the digest is said to be. A damaged index answers that it does not know.
func (r *Reader) Lookup(digest *pack.Digest) (at Location, ok bool) {
	if r.pages == nil || r.index.damaged.Load() {
		return Location{}, false
	}
	defer func(old bool) {
		debug.SetPanicOnFault(old)
		if recover() != nil {
			r.index.damaged.Store(true)
			at, ok = Location{}, false
		}
	}(debug.SetPanicOnFault(true))
	v := r.pages.Get(digest[:])
	if len(v) != 8 {
		return Location{}, false
	}
	id, live := r.index.live[binary.LittleEndian.Uint32(v)]
	return Location{Pack: id, Page: binary.LittleEndian.Uint32(v[4:])}, live
}

// Close ends the reader.
func (r *Reader) Close() error { return guard(r.tx.Rollback) }

// Close closes the index, and deletes it if it was found damaged.
func (x *Index) Close() error {
	err := x.closeDB()
	if x.damaged.Load() {
		err = errors.Join(err, begin(x.dir))
	}
	return err
}

func (x *Index) closeDB() error {
	if x.db == nil {
		return nil
	}
	return guard(x.db.Close)
}
