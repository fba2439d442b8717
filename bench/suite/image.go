package suite

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"thaw/restore"
)

const page = restore.PageSize

// An image is the memory of a snapshot in a file in memory, so that programs of all kinds can have it as their source: the
// engine by a mapping, the baselines by the descriptor. It repeats itself without end, so that large layouts need no large
// image. Its methods are safe for concurrent use; Close ends it.
type image struct {
	file *os.File
	data []byte
}

var _ restore.PageSource = (*image)(nil)

// newImage makes an image of so many pages, each of which differs from every other.
func newImage(pages uint64) (*image, error) {
	fd, err := unix.MemfdCreate("image", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	im := &image{file: os.NewFile(uintptr(fd), "image")}
	size := int(pages * page)
	if err := im.file.Truncate(int64(size)); err != nil {
		im.Close()
		return nil, err
	}
	if im.data, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		im.Close()
		return nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	for p := range pages {
		fillPage(im.data[p*page:][:page], p)
	}
	return im, nil
}

// fillPage writes the content of page p of an image: bytes that neither repeat nor compress.
func fillPage(b []byte, p uint64) {
	x := p*0x9e3779b97f4a7c15 + 1
	for i := 0; i < len(b); i += 8 {
		binary.NativeEndian.PutUint64(b[i:], x)
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
}

func (im *image) pages() uint64 { return uint64(len(im.data)) / page }

// word returns the first word of a page.
func (im *image) word(p uint64) uint64 { return (p%im.pages())*0x9e3779b97f4a7c15 + 1 }

// Ready implements [restore.PageSource].
func (im *image) Ready(p uint64, limit int) ([]byte, int) {
	p %= im.pages()
	n := min(uint64(limit), im.pages()-p)
	return im.data[p*page:][:n*page], int(n)
}

// Load implements [restore.PageSource].
func (im *image) Load(p uint64, limit int) ([]byte, int, error) {
	data, n := im.Ready(p, limit)
	return data, n, nil
}

// Prefetch implements [restore.PageSource].
func (im *image) Prefetch(uint64, uint64) {}

// Close frees the image, which nobody may use any more.
func (im *image) Close() error {
	if im.data != nil {
		if err := unix.Munmap(im.data); err != nil {
			return os.NewSyscallError("munmap", err)
		}
	}
	return im.file.Close()
}
