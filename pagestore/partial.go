package pagestore

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"path/filepath"
	"strings"

	"thaw/pagestore/internal/pack"
)

const (
	partialDir = "partial"
	mapExt     = ".map"
)

// voucher stands for all that the pages of a partial pack are checked against before the pack can be checked as a whole: the root, and what the hot pages are and where
// they belong. Whoever made up a snapshot may have made that up, too. So only stubs that say the same share a partial pack: the others must not get their pages
// from it. Zero: a complete pack, for which its id vouches.
type voucher [16]byte

func (v voucher) String() string { return hex.EncodeToString(v[:]) }

// partialID names a partial pack.
type partialID struct {
	id      PackID
	voucher voucher
}

// voucher returns what vouches for the pages of a pack.
func (r *Remote) voucher(p *RemotePackRoot) (v voucher) {
	b := binary.LittleEndian.AppendUint32([]byte("thaw partial 1\x00"), p.Pages)
	b = append(b, p.Root[:]...)
	if r.Hot != nil {
		b = append(append(b, r.Hot.Root[:]...), r.Hot.Placed[:]...)
	}
	sum := sha256.Sum256(b)
	copy(v[:], sum[:])
	return v
}

// placed stands for where hot pages belong, which the manifest and their order say.
func placed(manifest Digest, order []byte) Digest {
	sum := sha256.Sum256(order)
	return sha256.Sum256(append(manifest[:], sum[:]...))
}

// partial names the partial pack of a stub; ok is false if the stub has no such pack.
func (r *Remote) partial(id PackID) (name partialID, root RemotePackRoot, ok bool) {
	if r == nil {
		return partialID{}, RemotePackRoot{}, false
	}
	for i := range r.Packs {
		if r.Packs[i].ID == id {
			return partialID{id, r.voucher(&r.Packs[i])}, r.Packs[i], true
		}
	}
	return partialID{}, RemotePackRoot{}, false
}

func (n namespace) partial() string { return filepath.Join(n.dir, partialDir) }

// partialFiles returns the paths of a partial pack and of its map.
func (n namespace) partialFiles(name partialID) (file, state string) {
	path := filepath.Join(n.partial(), name.String())
	return path + packExt, path + mapExt
}

func (p partialID) String() string { return p.id.String() + "-" + p.voucher.String() }

func parsePartialID(s string) (p partialID, ok bool) {
	id, v, _ := strings.Cut(s, "-")
	var err error
	if p.id, err = pack.ParseID(id); err != nil || len(v) != 2*len(p.voucher) {
		return partialID{}, false
	}
	if _, err := hex.Decode(p.voucher[:], []byte(v)); err != nil || p.String() != s {
		return partialID{}, false
	}
	return p, true
}

// listPartial returns the partial packs of the namespace: those that have a map, or a file.
func (n namespace) listPartial() ([]partialID, error) {
	entries, err := readDir(n.partial())
	if err != nil {
		return nil, err
	}
	var all []partialID
	seen := make(map[partialID]bool)
	for _, e := range entries {
		for _, ext := range []string{packExt, mapExt} {
			if name, ok := strings.CutSuffix(e.Name(), ext); ok {
				if p, ok := parsePartialID(name); ok && !seen[p] {
					seen[p] = true
					all = append(all, p)
				}
			}
		}
	}
	return all, nil
}

// fullest returns the partial pack with most pages of those of an id; ok is false if there is none.
func (n namespace) fullest(id PackID) (name partialID, presence *pack.Presence, ok bool, err error) {
	all, err := n.listPartial()
	if err != nil {
		return partialID{}, nil, false, err
	}
	most := -1
	for _, p := range all {
		if p.id != id {
			continue
		}
		_, state := n.partialFiles(p)
		is, readErr := pack.ReadPresence(state)
		if readErr != nil || is.ID != id {
			continue // it is being made or deleted, or will be made anew
		}
		if count := is.Count(); count > most {
			name, presence, most, ok = p, is, count, true
		}
	}
	return name, presence, ok, nil
}

// vouched returns the partial packs that the stubs in some folders name.
func vouched(folders []folder) (map[partialID]bool, error) {
	names := make(map[partialID]bool)
	for _, f := range folders {
		r, err := readRemote(f.dir)
		if err != nil {
			return nil, err
		}
		if r == nil {
			continue
		}
		for i := range r.Packs {
			names[partialID{r.Packs[i].ID, r.voucher(&r.Packs[i])}] = true
		}
	}
	return names, nil
}
