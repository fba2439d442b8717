package objectstore

import (
	"errors"
	"io"
	"sync"
)

// source is what an upload reads. It remembers why it could not be read, for the library replaces errors by texts.
type source struct {
	r io.Reader

	mu  sync.Mutex // the transport may still read when the request has failed
	err error      // protected by mu
}

// Read implements io.Reader.
func (s *source) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
	}
	return n, err
}

func (s *source) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
