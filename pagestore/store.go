package pagestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"thaw/internal/durable"
	"thaw/pagestore/internal/pack"
)

// The format file marks a store; its content is part of the format, do not change it.
const (
	formatFile = "format"
	formatText = "thaw page store, version 1\n"
)

// Options change how a store is opened. The zero value is useful.
type Options struct {
	// NoWait makes writers that find the store locked by another one return [ErrLocked] at once. By default they wait
	// until it is free or their context is done.
	NoWait bool
	// KeepPacks is how many packs that no snapshot uses any more stay open, with what is known of their pages, for the next
	// snapshot that does: a node that restores the same snapshot again and again reads and checks it once. An open pack
	// costs a descriptor, address space and 10 KiB. Default: none. A pack that gc has deleted meanwhile is closed, and its
	// disk space free, when the next snapshot is opened or closed.
	KeepPacks int

	// Origin brings pages that a stub names and that are not here; see [Store.Adopt]. nil: they are [ErrNotLocal].
	Origin Origin
	// RemoteBytes is how many bytes of the disk what came from afar may take: partial packs, and the packs that only stubs name. More
	// is evicted in the background while pages come in, but never what somebody leases. 0: no bound.
	RemoteBytes int64

	// Logger receives what is worth knowing and is no error of a call, for example that an index is being rebuilt.
	// nil discards it.
	Logger *slog.Logger

	// fs changes the disk; tests put one here that fails.
	fs durable.FS
	// packPages is how many pages a new pack may have; tests make small ones.
	packPages int
	// packsCold makes no page of a pack count as being in memory; tests use it, whose packs always are.
	packsCold bool
	// hotPatience is how long a Load waits for a page that is to come with the hot pages; tests change it.
	hotPatience time.Duration
	// keepBytes is how many bytes are kept in memory while the disk is full; tests make it small.
	keepBytes int64
}

func (o *Options) setDefaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.fs == nil {
		o.fs = durable.Disk
	}
	if o.hotPatience == 0 {
		o.hotPatience = hotPatience
	}
	if o.keepBytes == 0 {
		o.keepBytes = keepBytes
	}
	if o.packPages == 0 {
		o.packPages = pack.MaxPages
	}
}

// Store is an open page store. It is safe for concurrent use, and several processes may have one store open.
type Store struct {
	dir  string
	opts Options

	prefetcher prefetcher
	// hotPrefetcher reads hot files: they are small, and wanted before all else. neededPrefetcher reads what else processes will need first.
	hotPrefetcher, neededPrefetcher prefetcher
	// remotePrefetcher asks the origin for what the others would read from the disk.
	remotePrefetcher prefetcher
	// ahead bounds how many pages it asks for at a time.
	ahead *semaphore.Weighted

	// ctx ends with Close: what waits for the origin, and what runs in the background.
	ctx     context.Context
	cancel  context.CancelCauseFunc
	running sync.WaitGroup
	// finishing is held while an ordinary pack is made of a partial one, and evicting while room is made.
	finishing, evicting sync.Mutex
	cameIn              atomic.Int64 // bytes from afar since the quota was looked at
	inMemory            atomic.Int64 // bytes from afar that are in memory because the disk was full

	mu struct {
		sync.Mutex
		closed bool
		// packs are the open packs, each shared by all snapshots of this Store that use it.
		packs map[packKey]*openPack
		// streams are the hot pages that are coming in.
		streams map[streamKey]*hotStream
		// idle are the open packs that no snapshot uses, the one that has been idle longest first.
		idle []*openPack
	}
}

// Create makes a store in the folder dir, which must be empty or not exist, and opens it. Errors are
// [fs.ErrExist] if it is a store already and [ErrNotEmpty] if it holds something else.
func Create(dir string) (*Store, error) {
	if err := create(durable.Disk, dir); err != nil {
		return nil, fmt.Errorf("create store %s: %w", dir, classify(err))
	}
	return Open(dir, nil)
}

func create(fsys durable.FS, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, formatFile)); err == nil {
		return fs.ErrExist
	}
	if err := fsys.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case formatFile:
			return fs.ErrExist
		case "lost+found", formatFile + ".tmp", lockFile, namespacesDir: // a new file system; a Create that was killed
		case "functions": // those of thaw deploy, which come first on some hosts
		default:
			return fmt.Errorf("%w: it holds %s", ErrNotEmpty, e.Name())
		}
	}
	if err := makeLockFile(fsys, filepath.Join(dir, lockFile)); err != nil {
		return err
	}
	// Several may be at this at once: the first makes the store, the others find it made.
	unlock, err := (&Store{dir: dir}).lock(context.Background())
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(dir, formatFile)); err == nil {
		return fs.ErrExist
	}
	if err := durable.MkdirAll(fsys, dir, namespacesDir); err != nil {
		return err
	}
	if err := durable.Replace(fsys, filepath.Join(dir, formatFile), []byte(formatText)); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(dir))
}

// Open opens the store in the folder dir, for reading and writing. It takes no lock and changes nothing. Errors are
// [ErrNotStore] and [ErrVersion].
func Open(dir string, opts *Options) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := checkFormat(filepath.Join(dir, formatFile)); err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	s := &Store{
		dir:              dir,
		hotPrefetcher:    prefetcher{eager: true, workers: 1},
		neededPrefetcher: prefetcher{eager: true, workers: 1},
		prefetcher:       prefetcher{workers: 1},
		remotePrefetcher: prefetcher{eager: true, workers: remoteWorkers},
		ahead:            semaphore.NewWeighted(remotePages),
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	if opts != nil {
		s.opts = *opts
	}
	s.opts.setDefaults()
	s.mu.packs = make(map[packKey]*openPack)
	s.mu.streams = make(map[streamKey]*hotStream)
	return s, nil
}

func checkFormat(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNotStore, err)
	} else if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return err
	}
	if string(text) == formatText {
		return nil
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if strings.HasPrefix(line, "thaw page store, version ") {
		return fmt.Errorf("%w: %q", ErrVersion, line)
	}
	return fmt.Errorf("%w: format file says %q", ErrNotStore, line)
}

// Dir returns the folder of the store.
func (s *Store) Dir() string { return s.dir }

// Close ends the prefetches that the store's images asked for, and waits for them. Snapshots that are open stay valid, as far as they
// do not need the origin any more, and must be closed on their own. Close is idempotent.
func (s *Store) Close() error {
	s.mu.Lock()
	s.mu.closed = true
	s.mu.Unlock()
	s.cancel(ErrClosed)
	s.prefetcher.stop()
	s.hotPrefetcher.stop()
	s.neededPrefetcher.stop()
	s.remotePrefetcher.stop()
	s.running.Wait()
	s.closeIdle(0)
	return nil
}

// background runs fn in a goroutine for which Close waits; fn should end with its context. It reports whether it does.
func (s *Store) background(fn func(ctx context.Context)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return false
	}
	s.running.Go(func() { fn(s.ctx) })
	return true
}

// Namespaces returns the namespaces that the store has folders for, sorted.
func (s *Store) Namespaces() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, namespacesDir))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && validatePart(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

const (
	lockFile      = "lock"
	namespacesDir = "namespaces"

	packsDir     = "packs"
	snapshotsDir = "snapshots"
	stagingDir   = "staging"
	removedDir   = "removed"
	indexDir     = "index"

	manifestFile = "manifest"
	infoFile     = "info.json"
	skeletonDir  = "skeleton"

	packExt = ".pack"
)

// namespace is the folder of one namespace.
type namespace struct {
	name string
	dir  string
}

func (s *Store) namespace(name string) namespace {
	return namespace{name: name, dir: filepath.Join(s.dir, namespacesDir, name)}
}

func (n namespace) packs() string     { return filepath.Join(n.dir, packsDir) }
func (n namespace) snapshots() string { return filepath.Join(n.dir, snapshotsDir) }
func (n namespace) staging() string   { return filepath.Join(n.dir, stagingDir) }
func (n namespace) removed() string   { return filepath.Join(n.dir, removedDir) }
func (n namespace) index() string     { return filepath.Join(n.dir, indexDir) }

func (n namespace) pack(id PackID) string {
	return filepath.Join(n.packs(), id.String()+packExt)
}

func (n namespace) snapshot(name string) string { return filepath.Join(n.snapshots(), name) }

// make creates what is missing of the namespace.
func (n namespace) make(fsys durable.FS) error {
	root := filepath.Dir(n.dir)
	for _, d := range []string{packsDir, snapshotsDir, stagingDir, removedDir} {
		if err := durable.MkdirAll(fsys, root, n.name, d); err != nil {
			return err
		}
	}
	return nil
}

// MakeNamespace makes the folders of a namespace, if they are not there, so that containers can bind [Store.PacksDir] before there
// is anything in it.
func (s *Store) MakeNamespace(name string) error {
	if err := (Name{Namespace: name, Snapshot: "any"}).Validate(); err != nil {
		return err
	}
	if err := s.namespace(name).make(s.opts.fs); err != nil {
		return fmt.Errorf("make namespace %s: %w", name, classify(err))
	}
	return nil
}

// PacksDir returns the folder of a namespace's packs.
func (s *Store) PacksDir(namespace string) string { return s.namespace(namespace).packs() }

// packFile is a file in a packs folder.
type packFile struct {
	id   PackID
	size int64
}

// listPacks returns the packs of the namespace. Files of other names are left alone: they are not ours.
func (n namespace) listPacks() ([]packFile, error) {
	entries, err := readDir(n.packs())
	if err != nil {
		return nil, err
	}
	var packs []packFile
	for _, e := range entries {
		hex, ok := strings.CutSuffix(e.Name(), packExt)
		if !ok {
			continue
		}
		id, err := pack.ParseID(hex)
		if err != nil {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // swept since
		} else if err != nil {
			return nil, err
		}
		packs = append(packs, packFile{id: id, size: info.Size()})
	}
	return packs, nil
}

// readDir is os.ReadDir to which a folder that does not exist is empty.
func readDir(dir string) ([]os.DirEntry, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}
