package pagestore

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"thaw/pagestore/internal/pack"
)

// Limits of info.json, part of the format: it is read whole by every List.
const (
	infoVersion = 1
	maxInfoLen  = 16 << 20
)

// Info is what is known of a snapshot without reading its manifest.
type Info struct {
	Name Name `json:"name"`
	// Created is when the import was committed.
	Created time.Time `json:"created"`
	// Digest is the SHA-256 of the manifest: what the snapshot is, memory and places.
	Digest Digest `json:"digest"`
	// ManifestBytes and ManifestSum are the size of the manifest and the checksum in its header.
	ManifestBytes int64  `json:"manifest_bytes"`
	ManifestSum   uint64 `json:"manifest_sum"`
	// Parent is the snapshot on top of which this one was taken. It may be gone: a manifest needs no other.
	Parent Name `json:"parent,omitzero"`
	// Spaces is the number of address spaces.
	Spaces int `json:"spaces"`
	// Pages is the size of the image; ZeroPages of them are zero, NewPages were stored by this import, the others were
	// in the store before or occur in the image more than once.
	Pages     uint64 `json:"pages"`
	ZeroPages uint64 `json:"zero_pages"`
	NewPages  uint64 `json:"new_pages"`
	// Skeleton lists the files of the skeleton.
	Skeleton []SkeletonFile `json:"skeleton"`
	// Host is what Input.Host was.
	Host json.RawMessage `json:"host,omitempty"`
}

// SkeletonFile is one file of a skeleton.
type SkeletonFile struct {
	// Path is relative to the skeleton folder, with slashes.
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	SHA256 Digest `json:"sha256"`
}

// SkeletonBytes returns the size of all files of the skeleton.
func (i *Info) SkeletonBytes() (n int64) {
	for _, f := range i.Skeleton {
		n += f.Bytes
	}
	return n
}

// infoEnvelope is the form of info.json: the digest is of the bytes of the info value, as they stand in the file.
type infoEnvelope struct {
	Version int             `json:"version"`
	SHA256  Digest          `json:"sha256"`
	Info    json.RawMessage `json:"info"`
}

func encodeInfo(info *Info) ([]byte, error) {
	raw, err := json.Marshal(info)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(infoEnvelope{Version: infoVersion, SHA256: sha256.Sum256(raw), Info: raw})
	if err != nil {
		return nil, err
	}
	text = append(text, '\n')
	if len(text) > maxInfoLen {
		return nil, fmt.Errorf("%s of %d bytes, want at most %d", infoFile, len(text), maxInfoLen)
	}
	if _, err := parseInfo(text); err != nil {
		return nil, fmt.Errorf("read back %s: %w", infoFile, err)
	}
	return text, nil
}

// parseInfo checks the text of an info.json. Errors wrap ErrCorrupt or ErrVersion.
func parseInfo(text []byte) (*Info, error) {
	var env infoEnvelope
	if err := strictUnmarshal(text, &env); err != nil {
		return nil, corruptf("%s: %w", infoFile, err)
	}
	if env.Version != infoVersion {
		return nil, fmt.Errorf("%w: %s has version %d, want %d", ErrVersion, infoFile, env.Version, infoVersion)
	}
	if got := pack.Digest(sha256.Sum256(env.Info)); got != env.SHA256 {
		return nil, corruptf("%s has digest %s, want %s", infoFile, got, env.SHA256)
	}
	info := new(Info)
	if err := strictUnmarshal(env.Info, info); err != nil {
		return nil, corruptf("%s: %w", infoFile, err)
	}
	if err := info.check(); err != nil {
		return nil, corruptf("%s: %w", infoFile, err)
	}
	return info, nil
}

// strictUnmarshal is json.Unmarshal that refuses fields it does not know.
func strictUnmarshal(text []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("trailing data")
	}
	return nil
}

func (i *Info) check() error {
	if err := i.Name.Validate(); err != nil {
		return err
	}
	if i.ZeroPages > i.Pages || i.NewPages > i.Pages-i.ZeroPages {
		return fmt.Errorf("%d zero and %d new pages of %d", i.ZeroPages, i.NewPages, i.Pages)
	}
	if i.ManifestBytes < 0 || i.Spaces < 0 {
		return fmt.Errorf("%d bytes of manifest, %d spaces", i.ManifestBytes, i.Spaces)
	}
	for _, f := range i.Skeleton {
		if !filepath.IsLocal(f.Path) || f.Bytes < 0 {
			return fmt.Errorf("skeleton file %q of %d bytes", f.Path, f.Bytes)
		}
	}
	return nil
}

// readInfo reads the info.json of the snapshot folder dir.
func readInfo(dir string) (*Info, error) {
	f, err := os.Open(filepath.Join(dir, infoFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, corruptf("%s is missing", infoFile)
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxInfoLen+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxInfoLen {
		return nil, corruptf("%s has more than %d bytes", infoFile, maxInfoLen)
	}
	return parseInfo(text)
}
