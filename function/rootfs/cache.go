package rootfs

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"thaw/checkpoint"
	"thaw/internal/durable"
)

// cache is the folder of unpacked layers: sha256/<digits of the layer's digest>. A folder of that name is whole. Who holds the lock unpacks, in
// the folder "staged", which is renamed in the end.
type cache struct {
	dir  string
	lock *os.File
}

func openCache(dir string) (*cache, error) {
	if err := os.MkdirAll(filepath.Join(dir, "sha256"), 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	// Another one who unpacks may be at work on the same image, so it is worth the wait.
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), lock.Close())
	}
	return &cache{dir: dir, lock: lock}, nil
}

func (c *cache) close() { c.lock.Close() }

// layer returns the folder of a layer, and unpacks it if it is not there. diffID is the digest of the layer without its compression.
func (c *cache) layer(ctx context.Context, l *layout, desc *v1.Descriptor, diffID digest.Digest, maxBytes int64) (string, error) {
	blob, err := l.blob(desc) // checks the digest, which becomes a path
	if err != nil {
		return "", err
	}
	defer blob.Close()
	folder := filepath.Join(c.dir, "sha256", desc.Digest.Encoded())
	if _, err := os.Lstat(folder); err == nil {
		return folder, nil
	}
	staged := filepath.Join(c.dir, "staged")
	if err := checkpoint.RemoveAll(staged); err != nil {
		return "", err
	}
	if err := os.Mkdir(staged, 0o755); err != nil {
		return "", err
	}
	err = unpackBlob(ctx, blob, staged, desc, diffID, maxBytes)
	if ctx.Err() != nil {
		err = context.Cause(ctx) // which the archive's end is not to blame for
	}
	if err == nil {
		err = syncFileSystem(staged)
	}
	if err == nil {
		err = os.Rename(staged, folder)
	}
	if err == nil {
		err = durable.Disk.SyncDir(filepath.Dir(folder))
	}
	if err != nil {
		return "", errors.Join(err, checkpoint.RemoveAll(staged))
	}
	return folder, nil
}

// syncFileSystem makes all that was unpacked durable at once: one by one thousands of files take minutes.
func syncFileSystem(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// unpackBlob unpacks a layer into an empty folder, and checks both of its digests.
func unpackBlob(ctx context.Context, blob io.Reader, dir string, desc *v1.Descriptor, diffID digest.Digest, maxBytes int64) error {
	packed := &counted{r: io.LimitReader(blob, desc.Size+1), hash: sha256.New(), ctx: ctx}
	plain, done, err := decompress(bufio.NewReaderSize(packed, 1<<20), desc.MediaType)
	if err != nil {
		return err
	}
	defer done()
	unpacked := &counted{r: plain, hash: sha256.New(), max: maxBytes}
	if err := unpack(unpacked, dir, maxBytes); err != nil {
		return err
	}
	// What follows the archive's end belongs to the digests, too.
	for _, rest := range []io.Reader{unpacked, packed} {
		if _, err := io.Copy(io.Discard, rest); err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	if got := packed.digest(); got != desc.Digest.String() || packed.n != desc.Size {
		return fmt.Errorf("%w: got %s of %d bytes, want %s of %d", ErrCorrupt, got, packed.n, desc.Digest, desc.Size)
	}
	if got := unpacked.digest(); got != diffID.String() {
		return fmt.Errorf("%w: unpacked it is %s, want %s", ErrCorrupt, got, diffID)
	}
	return nil
}

// decompress returns a reader of the archive. done ends it.
func decompress(r io.Reader, mediaType string) (plain io.Reader, done func(), err error) {
	switch mediaType {
	case v1.MediaTypeImageLayer, v1.MediaTypeImageLayerNonDistributable: //nolint:staticcheck // old images have it
		return r, func() {}, nil
	case v1.MediaTypeImageLayerGzip, v1.MediaTypeImageLayerNonDistributableGzip, dockerLayer: //nolint:staticcheck // old images have it
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return z, func() { z.Close() }, nil
	case v1.MediaTypeImageLayerZstd, v1.MediaTypeImageLayerNonDistributableZstd: //nolint:staticcheck // old images have it
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return z, z.Close, nil
	}
	return nil, nil, fmt.Errorf("%w: media type %q of a layer is unknown", ErrCorrupt, mediaType)
}

// counted hashes and counts what is read. max bounds it, if it is not 0.
type counted struct {
	r    io.Reader
	hash hash.Hash
	ctx  context.Context // ends the reading; nil: nothing does
	n    int64
	max  int64
}

func (c *counted) Read(p []byte) (int, error) {
	if c.ctx != nil && c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.hash.Write(p[:n])
	if c.max != 0 && c.n > c.max {
		return n, fmt.Errorf("%w: it unpacks to more than %d bytes", ErrCorrupt, c.max)
	}
	return n, err
}

func (c *counted) digest() string { return "sha256:" + hex.EncodeToString(c.hash.Sum(nil)) }
