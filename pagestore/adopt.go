package pagestore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"thaw/internal/durable"
	"thaw/pagestore/internal/hot"
	"thaw/pagestore/internal/manifest"
)

// Adoption is a snapshot that was made elsewhere, without its pages: what [Snapshot.Files] returned there, and where the pages come from.
type Adoption struct {
	// Name is what the snapshot will be called here, whatever it is called elsewhere.
	Name Name
	// Info and Manifest are the files of these names.
	Info, Manifest []byte
	// Skeleton fills the folder dir with the files that Info lists; nil if it lists none.
	Skeleton func(dir string) error
	// Hint and HotOrder are those of [Files]; HotOrder goes with Remote.Hot.
	Hint, HotOrder []byte
	// Remote has a root for each pack of the manifest.
	Remote Remote
}

// Adopt makes a stub: a snapshot whose pages come from Options.Origin when they are wanted, as far as they are not here. It is durable and
// visible when Adopt returns, and before that nobody sees anything of it. What is given is checked against itself: the manifest and the
// skeleton against Info, the packs and the order against the manifest; the caller vouches for Info and Remote. Errors are
// [ErrCorrupt] and [ErrVersion] for what contradicts that, [ErrInput], [ErrExists], [ErrLocked], [ErrNoSpace], those of ctx and of Skeleton.
func (s *Store) Adopt(ctx context.Context, a Adoption) error {
	if err := a.Name.Validate(); err != nil {
		return err
	}
	if err := s.adopt(ctx, &a); err != nil {
		return fmt.Errorf("adopt %s: %w", a.Name, classify(err))
	}
	return nil
}

func (s *Store) adopt(ctx context.Context, a *Adoption) error {
	info, remote, err := a.check()
	if err != nil {
		return err
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	// The folders and the renaming are those of an import without pages.
	im := &importer{store: s, ns: s.namespace(a.Name.Namespace), name: a.Name, input: Input{Skeleton: a.Skeleton}}
	if err := im.stage(); err != nil {
		return err
	}
	err = errors.Join(im.adopt(ctx, a, info, remote))
	if err != nil {
		return errors.Join(err, im.abandon())
	}
	return nil
}

// check returns the info and remote.json of the stub to be, if all parts fit together.
func (a *Adoption) check() (info *Info, remote []byte, err error) {
	if info, err = parseInfo(a.Info); err != nil {
		return nil, nil, err
	}
	info.Name = a.Name
	m, err := manifest.Parse(a.Manifest)
	if err != nil {
		return nil, nil, err
	}
	if got := Digest(sha256.Sum256(a.Manifest)); got != info.Digest || m.Checksum() != info.ManifestSum ||
		info.ManifestBytes != int64(len(a.Manifest)) {
		return nil, nil, corruptf("manifest has digest %s, want %s", got, info.Digest)
	}
	if err := a.Remote.check(m); err != nil {
		return nil, nil, err
	}
	if len(a.Hint) > maxHintLen {
		return nil, nil, fmt.Errorf("%w: hint of %d bytes, want at most %d", ErrInput, len(a.Hint), maxHintLen)
	}
	if (a.Remote.Hot != nil) != (len(a.HotOrder) > 0) {
		return nil, nil, fmt.Errorf("%w: hot pages without their order, or the other way around", ErrInput)
	}
	if h := a.Remote.Hot; h != nil {
		t, err := hot.ParseHead(a.HotOrder, info.Digest, m.ImagePages())
		if err != nil {
			return nil, nil, err
		}
		if t.Pages() != h.Pages {
			return nil, nil, corruptf("%s has %d pages, want %d", hotOrderFile, t.Pages(), h.Pages)
		}
		own := *h // h is the caller's
		own.Placed = placed(info.Digest, a.HotOrder)
		a.Remote.Hot = &own
	}
	if remote, err = encodeRemote(&a.Remote); err != nil {
		return nil, nil, err
	}
	_, err = parseRemote(remote)
	return info, remote, err
}

// adopt fills the staging folder and publishes it.
func (im *importer) adopt(ctx context.Context, a *Adoption, info *Info, remote []byte) error {
	if err := im.stageSkeleton(); err != nil {
		return err
	}
	if err := sameSkeleton(im.skeleton, info.Skeleton); err != nil {
		return err
	}
	text, err := encodeInfo(info)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{
		{manifestFile, a.Manifest}, {infoFile, text}, {remoteFile, remote}, {hintFile, a.Hint}, {hotOrderFile, a.HotOrder},
	} {
		if len(f.data) == 0 {
			continue
		}
		if err := durable.Write(im.fs(), im.staged(f.name), f.data); err != nil {
			return err
		}
	}
	if err := im.fs().Mkdir(im.ns.partial()); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, dir := range []string{im.staged(), im.dir, im.ns.staging(), im.ns.dir} {
		if err := im.fs().SyncDir(dir); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := im.store.move(im.staged(), im.ns.snapshot(im.name.Snapshot)); err != nil {
		return err
	}
	if err := durable.RemoveAll(im.fs(), im.dir); err != nil {
		im.store.opts.Logger.Warn("staging folder is left to the next writer", "snapshot", im.name.String(), "err", err)
	}
	return nil
}

// sameSkeleton returns an error unless the files that are there are those that should be.
func sameSkeleton(is, want []SkeletonFile) error {
	files := make(map[string]SkeletonFile, len(want))
	for _, f := range want {
		files[filepath.Clean(f.Path)] = f
	}
	for _, f := range is {
		w, ok := files[f.Path]
		if !ok || w.Bytes != f.Bytes || w.SHA256 != f.SHA256 {
			return corruptf("skeleton file %s has %d bytes with digest %s, want %d with %s", f.Path, f.Bytes, f.SHA256, w.Bytes, w.SHA256)
		}
		delete(files, f.Path)
	}
	for path := range files {
		return corruptf("skeleton file %s is missing", path)
	}
	return nil
}

// isStub reports whether the snapshot in the folder dir is a stub.
func isStub(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, remoteFile))
	return err == nil
}
