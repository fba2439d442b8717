package tier

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"thaw/pagestore"
	"thaw/pagestore/internal/hot"
	"thaw/pagestore/internal/manifest"
	"thaw/pagestore/internal/pack"
)

// These constants are part of the format; do not change them.
const (
	descriptorFormat  = "thaw-remote"
	nameFormat        = "thaw-name"
	descriptorVersion = 1

	// maxDescriptor bounds a descriptor in bytes: 180,000 packs, which hold more than the largest image.
	maxDescriptor = 32 << 20
	// maxName bounds the blob of a name, and a lease's head, in bytes.
	maxName = 4096
	// maxMeta bounds a meta object in bytes, as it travels.
	maxMeta = 4 << 30
)

// Descriptor names all that a snapshot is, by hash. Its own SHA-256 names it.
type Descriptor struct {
	// Snapshot is the name without the namespace, which the key has.
	Snapshot string
	Manifest Part
	Meta     Part
	// Packs are those that the manifest names, in its order.
	Packs []Pack
	// WorkingSet is nil if there is no hot object.
	WorkingSet *WorkingSet
	// Created is when the snapshot was imported where it was made.
	Created time.Time
}

// Part is some bytes and their SHA-256.
type Part struct {
	Digest pagestore.Digest `json:"digest"`
	Bytes  int64            `json:"bytes"`
}

// Pack is one pack of a snapshot.
type Pack struct {
	ID    pagestore.PackID `json:"id"`
	Pages uint32           `json:"pages"`
	// Root is that of the framed object, by which any frame of it is checked.
	Root pagestore.Digest `json:"root"`
}

// WorkingSet describes the hot object. Its bytes may differ from place to place, its pages do not.
type WorkingSet struct {
	Pages uint32           `json:"pages"`
	Root  pagestore.Digest `json:"root"`
}

// descriptorText is the form of a descriptor. The order of the fields is part of the format.
type descriptorText struct {
	Format     string      `json:"format"`
	Version    int         `json:"version"`
	Snapshot   string      `json:"snapshot"`
	Manifest   Part        `json:"manifest"`
	Meta       Part        `json:"meta"`
	Packs      []Pack      `json:"packs"`
	WorkingSet *WorkingSet `json:"working_set,omitempty"`
	Created    time.Time   `json:"created"`
}

// Encode returns the one form of the descriptor, and its digest.
func (d *Descriptor) Encode() ([]byte, pagestore.Digest, error) {
	text, err := d.text()
	if err != nil {
		return nil, pagestore.Digest{}, err
	}
	if _, err := ParseDescriptor(text); err != nil {
		return nil, pagestore.Digest{}, fmt.Errorf("read back descriptor: %w", err)
	}
	return text, sha256.Sum256(text), nil
}

func (d *Descriptor) text() ([]byte, error) {
	packs := d.Packs
	if packs == nil {
		packs = []Pack{}
	}
	return encodeLine(descriptorText{
		Format: descriptorFormat, Version: descriptorVersion, Snapshot: d.Snapshot, Manifest: d.Manifest, Meta: d.Meta,
		Packs: packs, WorkingSet: d.WorkingSet, Created: d.Created.UTC().Round(0),
	})
}

// ParseDescriptor reads what Encode wrote, and nothing else: there is one form of each descriptor. Errors wrap [pagestore.ErrCorrupt] or
// [pagestore.ErrVersion].
func ParseDescriptor(text []byte) (*Descriptor, error) {
	if len(text) > maxDescriptor {
		return nil, corruptf("descriptor of %d bytes, want at most %d", len(text), maxDescriptor)
	}
	var t descriptorText
	if err := decodeLine(text, descriptorFormat, &t); err != nil {
		return nil, fmt.Errorf("descriptor: %w", err)
	}
	d := &Descriptor{Snapshot: t.Snapshot, Manifest: t.Manifest, Meta: t.Meta, Packs: t.Packs, WorkingSet: t.WorkingSet, Created: t.Created}
	if err := d.check(); err != nil {
		return nil, corruptf("descriptor: %w", err)
	}
	if again, err := d.text(); err != nil || !bytes.Equal(again, text) {
		return nil, corruptf("descriptor: it is not in the form in which descriptors are written")
	}
	return d, nil
}

func (d *Descriptor) check() error {
	if err := (pagestore.Name{Namespace: "any", Snapshot: d.Snapshot}).Validate(); err != nil {
		return err
	}
	switch {
	case d.Manifest.Bytes <= 0 || uint64(d.Manifest.Bytes) > manifest.MaxSize:
		return fmt.Errorf("manifest of %d bytes", d.Manifest.Bytes)
	case d.Meta.Bytes <= 0 || d.Meta.Bytes > maxMeta:
		return fmt.Errorf("meta object of %d bytes, want at most %d", d.Meta.Bytes, int64(maxMeta))
	case d.Packs == nil:
		return errors.New("no list of packs")
	case d.WorkingSet != nil && (d.WorkingSet.Pages == 0 || d.WorkingSet.Pages > hot.MaxPages):
		return fmt.Errorf("hot object of %d pages, want 1 to %d", d.WorkingSet.Pages, hot.MaxPages)
	}
	seen := make(map[pagestore.PackID]bool, len(d.Packs))
	for _, p := range d.Packs {
		if p.Pages == 0 || p.Pages > pack.MaxPages {
			return fmt.Errorf("pack %s of %d pages, want 1 to %d", p.ID, p.Pages, pack.MaxPages)
		}
		if seen[p.ID] {
			return fmt.Errorf("pack %s comes twice", p.ID)
		}
		seen[p.ID] = true
	}
	return nil
}

// keys returns the keys of what the descriptor names, which a place has to have for the name to be of use there.
func (d *Descriptor) keys(namespace string) []Key {
	keys := []Key{MetaKey(namespace, d.Meta.Digest)}
	if d.WorkingSet != nil {
		keys = append(keys, HotKey(namespace, d.Manifest.Digest, d.WorkingSet.Root))
	}
	for _, p := range d.Packs {
		keys = append(keys, PackKey(namespace, p.ID))
	}
	return keys
}

// pointer is what the blob of a name says: which descriptor it stands for.
type pointer struct {
	Format     string           `json:"format"`
	Version    int              `json:"version"`
	Descriptor pagestore.Digest `json:"descriptor"`
	Bytes      int64            `json:"bytes"` // of the descriptor
}

func encodePointer(descriptor []byte) ([]byte, error) {
	return encodeLine(pointer{nameFormat, descriptorVersion, sha256.Sum256(descriptor), int64(len(descriptor))})
}

func parsePointer(text []byte) (p pointer, err error) {
	if err := decodeLine(text, nameFormat, &p); err != nil {
		return p, fmt.Errorf("name: %w", err)
	}
	if p.Bytes <= 0 || p.Bytes > maxDescriptor {
		return p, corruptf("name: descriptor of %d bytes, want at most %d", p.Bytes, maxDescriptor)
	}
	return p, nil
}

// encodeLine returns v as one line of JSON.
func encodeLine(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	return append(text, '\n'), err
}

// decodeLine reads one value of JSON whose format field has to be format, and refuses fields that it does not know. A higher version is told from
// something broken, whatever else it has.
func decodeLine(text []byte, format string, v any) error {
	var head struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return corruptf("%w", err)
	}
	if head.Format != format {
		return corruptf("format is %.50q, want %q", head.Format, format)
	}
	if head.Version != descriptorVersion {
		return fmt.Errorf("%w: %d, want %d", pagestore.ErrVersion, head.Version, descriptorVersion)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return corruptf("%w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return corruptf("trailing data")
	}
	return nil
}

func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", pagestore.ErrCorrupt, fmt.Errorf(format, args...))
}
