package pack

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// These constants are part of the format; do not change them.
const (
	// PageSize is the size of a page in bytes.
	PageSize = 4096
	// MaxPages bounds a pack to 256 MiB of pages: small enough that garbage is collected in useful pieces and that
	// the tables of a pack under construction fit in memory (2.6 MB), large enough that a snapshot of gigabytes
	// needs few mappings.
	MaxPages = 1 << 16
	// Version is the one version of the format.
	Version = 1
	// SumSize is the size of a page's fast checksum, little endian, in bytes.
	SumSize = 8

	headerMagic  = "THAWPACK"
	trailerMagic = "THAWTAIL"

	headerSize  = PageSize
	sumSize     = SumSize
	digestSize  = sha256.Size
	trailerSize = 72

	headerSumOff = headerSize - 8

	trailerPagesOff   = 12
	trailerIDOff      = 16
	trailerSumsOff    = 48
	trailerDigestsOff = 56
	trailerSumOff     = 64
)

// Errors of the package.
var (
	// ErrCorrupt: the bytes are not a pack as it was written.
	ErrCorrupt = errors.New("corrupt pack")
	// ErrVersion: a pack of a version that this code does not know.
	ErrVersion = errors.New("unknown pack version")
)

// Digest is the SHA-256 of a page.
type Digest [digestSize]byte

// String returns the digest in hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler, in hexadecimal.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) != 2*len(d) {
		return fmt.Errorf("digest of %d characters, want %d", len(text), 2*len(d))
	}
	_, err := hex.Decode(d[:], text)
	return err
}

// ID names a pack: the SHA-256 of its footer.
type ID = Digest

// ParseID reads an ID in hexadecimal.
func ParseID(s string) (ID, error) {
	var id ID
	return id, id.UnmarshalText([]byte(s))
}

// Sum returns the fast checksum of a page.
func Sum(page []byte) uint64 { return xxhash.Sum64(page) }

// Offset returns where page starts in a pack file, in bytes.
func Offset(page uint32) int64 { return headerSize + int64(page)*PageSize }

// FileSize returns the size in bytes of a pack with n pages.
func FileSize(n int) int64 {
	return headerSize + int64(n)*(PageSize+sumSize+digestSize) + trailerSize
}

// pagesOf returns how many pages a pack of size bytes has.
func pagesOf(size int64) (int, error) {
	n := (size - FileSize(0)) / (PageSize + sumSize + digestSize)
	if n < 1 || n > MaxPages || size != FileSize(int(n)) {
		return 0, fmt.Errorf("%w: no pack has %d bytes", ErrCorrupt, size)
	}
	return int(n), nil
}

// encodeHeader returns the first page of a pack.
func encodeHeader() []byte {
	b := make([]byte, headerSize)
	copy(b, headerMagic)
	binary.LittleEndian.PutUint32(b[8:], Version)
	binary.LittleEndian.PutUint32(b[12:], PageSize)
	binary.LittleEndian.PutUint64(b[headerSumOff:], xxhash.Sum64(b[:headerSumOff]))
	return b
}

// checkHeader returns an error unless b is the first page of a pack. The reserved bytes are not looked at one by one:
// every valid header of a version is the same.
func checkHeader(b []byte) error {
	if len(b) != headerSize || string(b[:8]) != headerMagic {
		return fmt.Errorf("%w: no pack header", ErrCorrupt)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != Version {
		return fmt.Errorf("%w: header has version %d, want %d", ErrVersion, v, Version)
	}
	if string(b) != string(encodeHeader()) {
		return fmt.Errorf("%w: header differs from that of version %d", ErrCorrupt, Version)
	}
	return nil
}

// trailer is the fixed end of a pack.
type trailer struct {
	pages      int
	id         ID
	sumsSum    uint64
	digestsSum uint64
}

func (t *trailer) encode() []byte {
	b := make([]byte, trailerSize)
	copy(b, trailerMagic)
	binary.LittleEndian.PutUint32(b[8:], Version)
	binary.LittleEndian.PutUint32(b[trailerPagesOff:], uint32(t.pages))
	copy(b[trailerIDOff:], t.id[:])
	binary.LittleEndian.PutUint64(b[trailerSumsOff:], t.sumsSum)
	binary.LittleEndian.PutUint64(b[trailerDigestsOff:], t.digestsSum)
	binary.LittleEndian.PutUint64(b[trailerSumOff:], xxhash.Sum64(b[:trailerSumOff]))
	return b
}

// decodeTrailer checks the last bytes of a file of the given size.
func decodeTrailer(b []byte, fileSize int64) (trailer, error) {
	var t trailer
	if len(b) != trailerSize || string(b[:8]) != trailerMagic {
		return t, fmt.Errorf("%w: no pack trailer", ErrCorrupt)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != Version {
		return t, fmt.Errorf("%w: trailer has version %d, want %d", ErrVersion, v, Version)
	}
	want, got := binary.LittleEndian.Uint64(b[trailerSumOff:]), xxhash.Sum64(b[:trailerSumOff])
	if want != got {
		return t, fmt.Errorf("%w: trailer has checksum %016x, want %016x", ErrCorrupt, got, want)
	}
	pages := binary.LittleEndian.Uint32(b[trailerPagesOff:])
	if pages == 0 || pages > MaxPages {
		return t, fmt.Errorf("%w: trailer counts %d pages, want 1 to %d", ErrCorrupt, pages, MaxPages)
	}
	if want := FileSize(int(pages)); fileSize != want {
		return t, fmt.Errorf("%w: file of %d pages has %d bytes, want %d", ErrCorrupt, pages, fileSize, want)
	}
	t.pages = int(pages)
	copy(t.id[:], b[trailerIDOff:])
	t.sumsSum = binary.LittleEndian.Uint64(b[trailerSumsOff:])
	t.digestsSum = binary.LittleEndian.Uint64(b[trailerDigestsOff:])
	return t, nil
}
