package pagestore

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"thaw/pagestore/internal/hot"
	"thaw/pagestore/internal/manifest"
	"thaw/pagestore/internal/pack"
)

const (
	remoteFile   = "remote.json"
	hotOrderFile = "hotorder"

	remoteVersion = 1
	// maxRemoteLen bounds remote.json, which is read whole: a pack is 256 MiB and takes 200 bytes here. Part of the format.
	maxRemoteLen = 64 << 20
)

// Remote says where the pages of a snapshot come from, if they are not here: a snapshot that has one is a stub.
type Remote struct {
	// Descriptor is whatever the origin wants to find again. It is opaque here.
	Descriptor []byte `json:"descriptor"`
	// Packs are those of the manifest, all of them.
	Packs []RemotePackRoot `json:"packs"`
	// Hot is the object of hot pages; nil if there is none.
	Hot *RemoteHotRoot `json:"hot,omitempty"`
}

// RemotePackRoot is what a pack has to be.
type RemotePackRoot struct {
	ID    PackID `json:"id"`
	Pages uint32 `json:"pages"`
	// Root is that of the pack's framed object.
	Root Digest `json:"root"`
}

// RemoteHotRoot is what the object of hot pages has to be.
type RemoteHotRoot struct {
	Pages uint32 `json:"pages"`
	Root  Digest `json:"root"`
	// Placed stands for where they belong. Adopt sets it.
	Placed Digest `json:"placed"`
}

// check returns an error unless r has a root for each pack of a manifest.
func (r *Remote) check(m *manifest.Manifest) error {
	roots := make(map[PackID]RemotePackRoot, len(r.Packs))
	for _, p := range r.Packs {
		roots[p.ID] = p
	}
	for i := range m.Packs() {
		p := m.Pack(i)
		if root, ok := roots[p.ID]; !ok || root.Pages != p.Pages {
			return corruptf("%s has %d pages for pack %s, want %d", remoteFile, root.Pages, p.ID, p.Pages)
		}
	}
	return nil
}

// remoteEnvelope is the form of remote.json, like that of info.json.
type remoteEnvelope struct {
	Version int             `json:"version"`
	SHA256  Digest          `json:"sha256"`
	Remote  json.RawMessage `json:"remote"`
}

func encodeRemote(r *Remote) ([]byte, error) {
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(remoteEnvelope{Version: remoteVersion, SHA256: sha256.Sum256(raw), Remote: raw})
	if err != nil {
		return nil, err
	}
	if text = append(text, '\n'); len(text) > maxRemoteLen {
		return nil, fmt.Errorf("%w: %s of %d bytes, want at most %d", ErrInput, remoteFile, len(text), maxRemoteLen)
	}
	return text, nil
}

// parseRemote checks the text of a remote.json. Errors wrap ErrCorrupt or ErrVersion.
func parseRemote(text []byte) (*Remote, error) {
	var env remoteEnvelope
	if err := strictUnmarshal(text, &env); err != nil {
		return nil, corruptf("%s: %w", remoteFile, err)
	}
	if env.Version != remoteVersion {
		return nil, fmt.Errorf("%w: %s has version %d, want %d", ErrVersion, remoteFile, env.Version, remoteVersion)
	}
	if got := Digest(sha256.Sum256(env.Remote)); got != env.SHA256 {
		return nil, corruptf("%s has digest %s, want %s", remoteFile, got, env.SHA256)
	}
	r := new(Remote)
	if err := strictUnmarshal(env.Remote, r); err != nil {
		return nil, corruptf("%s: %w", remoteFile, err)
	}
	if h := r.Hot; h != nil && (h.Pages == 0 || h.Pages > hot.MaxPages) {
		return nil, corruptf("%s has %d hot pages", remoteFile, h.Pages)
	}
	for _, p := range r.Packs {
		if p.Pages == 0 || p.Pages > pack.MaxPages {
			return nil, corruptf("%s has a pack of %d pages", remoteFile, p.Pages)
		}
	}
	return r, nil
}

// readRemote reads the remote.json of the snapshot folder dir; nil if it has none.
func readRemote(dir string) (*Remote, error) {
	text, err := readLimited(filepath.Join(dir, remoteFile), maxRemoteLen)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return parseRemote(text)
}

// readLimited reads a file whole, if it has at most limit bytes.
func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = corruptf("%s has more than %d bytes", filepath.Base(path), limit)
	}
	return b, err
}

// Remote returns where the pages of the snapshot come from; nil if it was made here, and needs no origin. It must not be changed.
func (s *Snapshot) Remote() *Remote { return s.remote }

// used notes that a stub is in use, for Evict.
func (s *Snapshot) used() {
	now := time.Now()
	_ = os.Chtimes(filepath.Join(filepath.Dir(s.SkeletonDir()), remoteFile), now, now) // a hint
}

// hotTable reads which pages of the image the hot object of a stub has. Errors wrap ErrCorrupt, or say that there is none.
func (s *Snapshot) hotTable() (*hot.Table, error) {
	head, err := readLimited(filepath.Join(filepath.Dir(s.SkeletonDir()), hotOrderFile), hot.MaxHeadSize)
	if err != nil {
		return nil, err
	}
	t, err := hot.ParseHead(head, s.info.Digest, s.manifest.ImagePages())
	if err != nil {
		return nil, classify(err)
	}
	if want := s.remote.Hot.Pages; t.Pages() != want {
		return nil, corruptf("%s has %d pages, want %d", hotOrderFile, t.Pages(), want)
	}
	return t, nil
}

// HotOrder returns which pages of the image come as one object where the snapshot is restored from elsewhere, in their order: the runs, and the form in which an
// [Adoption] takes them. They are those that SetWorkingSet was given for that, or those that have a packed copy, here or afar. Both are nil if there are none.
func (s *Snapshot) HotOrder() (runs []PageRun, encoded []byte, err error) {
	runs, encoded, err = s.hotOrder()
	if err != nil {
		return nil, nil, fmt.Errorf("read hot order of %s: %w", s.info.Name, classify(err))
	}
	return runs, encoded, nil
}

func (s *Snapshot) hotOrder() (runs []PageRun, encoded []byte, err error) {
	if s.remote == nil {
		runs, encoded, err = s.readHotOrder(hotOrderFile)
		switch {
		case err == nil:
			return runs, encoded, nil
		case !errors.Is(err, fs.ErrNotExist):
			s.store.opts.Logger.Warn("order of pages for restores elsewhere is not used", "snapshot", s.info.Name.String(), "err", err)
		}
	}
	runs, encoded, err = s.readHotOrder(hotFile)
	if errors.Is(err, fs.ErrNotExist) {
		if s.remote == nil || s.remote.Hot == nil {
			return nil, nil, nil
		}
		return s.readHotOrder(hotOrderFile)
	}
	return runs, encoded, err
}

// readHotOrder reads the head of a hot file, or the file that is only that.
func (s *Snapshot) readHotOrder(name string) (runs []PageRun, encoded []byte, err error) {
	f, err := s.openBeside(name)
	if err != nil {
		return nil, nil, err
	}
	encoded, err = hot.ReadHead(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, nil, err
	}
	t, err := hot.ParseHead(encoded, s.info.Digest, s.manifest.ImagePages())
	if err != nil {
		return nil, nil, err
	}
	for i := range t.Runs() {
		r, _ := t.Run(i)
		runs = append(runs, PageRun{Image: r.Image, Pages: uint64(r.Pages)})
	}
	return runs, encoded, nil
}

// Files is what a snapshot is made of, but for its pages.
type Files struct {
	// Info and Manifest are the files of these names, as they lie there.
	Info, Manifest []byte
	// Skeleton lists the files below [Snapshot.SkeletonDir].
	Skeleton []SkeletonFile
	// Hint is what SetWorkingSet has kept, and HotOrder what [Snapshot.HotOrder] returns; nil if there is none.
	Hint, HotOrder []byte
}

// Files returns what the snapshot is made of, for an [Adoption] elsewhere.
func (s *Snapshot) Files() (Files, error) {
	f, err := s.files()
	if err != nil {
		return Files{}, fmt.Errorf("read files of %s: %w", s.info.Name, classify(err))
	}
	return f, nil
}

func (s *Snapshot) files() (f Files, err error) {
	f.Skeleton = slices.Clone(s.info.Skeleton)
	if f.Info, err = readLimited(filepath.Join(filepath.Dir(s.SkeletonDir()), infoFile), maxInfoLen); err != nil {
		return f, err
	}
	if err := copyMapped(&f.Manifest, s.data); err != nil {
		return f, err
	}
	if got := Digest(sha256.Sum256(f.Manifest)); got != s.info.Digest {
		return f, corruptf("manifest has digest %s, want %s", got, s.info.Digest)
	}
	if f.Hint, err = s.readHint(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	_, f.HotOrder, err = s.hotOrder()
	return f, err
}

func copyMapped(to *[]byte, from []byte) error {
	*to = make([]byte, len(from))
	return copyPages(*to, from)
}

// Packs returns the packs that the manifest names, in its order.
func (s *Snapshot) Packs() ([]RemotePackRoot, error) {
	ids, pages, err := readPacks(s.manifest)
	if err != nil {
		return nil, fmt.Errorf("read packs of %s: %w", s.info.Name, err)
	}
	var packs []RemotePackRoot
	for i, id := range ids {
		_, root, _ := s.remote.partial(id)
		packs = append(packs, RemotePackRoot{ID: id, Pages: pages[i], Root: root.Root})
	}
	return packs, nil
}
