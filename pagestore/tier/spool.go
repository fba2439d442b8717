package tier

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"os"

	"thaw/pagestore"
)

// spool is bytes on their way, in a file without a name, so that it goes with the process.
type spool struct {
	file *os.File
	size int64
}

// newSpool makes an empty spool in the folder dir, [os.TempDir] if that is empty.
func newSpool(dir string) (*spool, error) {
	f, err := os.CreateTemp(dir, "thaw-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &spool{file: f}, nil
}

// WriteAt makes a spool something that a frame.Writer writes to.
func (s *spool) WriteAt(b []byte, off int64) (int, error) {
	n, err := s.file.WriteAt(b, off)
	s.size = max(s.size, off+int64(n))
	return n, err
}

// reader reads n bytes from off on. Several may read at a time.
func (s *spool) reader(off, n int64) io.Reader { return io.NewSectionReader(s.file, off, n) }

func (s *spool) Close() error { return s.file.Close() }

// appender appends to a spool, and hashes what it appends.
type appender struct {
	*spool
	hash hash.Hash
}

func newAppender(s *spool) *appender { return &appender{s, sha256.New()} }

func (a *appender) Write(b []byte) (int, error) {
	a.hash.Write(b)
	return a.WriteAt(b, a.size)
}

func (a *appender) part() Part {
	return Part{pagestore.Digest(a.hash.Sum(nil)), a.size}
}
