package objectstore

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"

	"github.com/minio/minio-go/v7"

	"thaw/pagestore/blob"
)

// proofName is the object that proves it, beside all keys: none begins with a dot. It stays, so that the next proof takes one request and changes nothing.
const proofName = ".thaw-exclusive"

// proofText is what it holds.
const proofText = "This object lets Thaw find out whether the store refuses to replace objects when it is asked to (If-None-Match). It may be deleted.\n"

// proof knows whether the store obeys If-None-Match, once it has seen it.
type proof struct {
	mu        sync.Mutex // also held while the store is asked: others wait for the answer
	known     bool       // protected by mu
	exclusive bool       // protected by mu
}

// knownProof is the proof where the URL says it: "yes" or "no"; else there is none yet.
func knownProof(setting string) proof {
	return proof{known: setting != "", exclusive: setting == "yes"}
}

// Exclusive implements blob.Bucket. Before the first Create it is known from the URL only, and false otherwise.
func (s *store) Exclusive() bool {
	s.proof.mu.Lock()
	defer s.proof.mu.Unlock()
	return s.proof.exclusive
}

// get returns whether the store obeys it, and asks if it is not known. What goes wrong is no answer: the next call asks again.
func (p *proof) get(ctx context.Context, s *store) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known {
		return p.exclusive, nil
	}
	exclusive, err := s.ask(ctx)
	if err != nil {
		return false, err
	}
	p.known, p.exclusive = true, exclusive
	return exclusive, nil
}

// ask puts the object so that it must be refused if it exists; after the first time it does.
func (s *store) ask(ctx context.Context) (exclusive bool, err error) {
	for range 2 {
		var opts minio.PutObjectOptions
		opts.SetMatchETagExcept("*")
		err := s.put(ctx, s.object(proofName), strings.NewReader(proofText), int64(len(proofText)), opts)
		switch {
		case unknownHeader(err):
			return false, nil
		case errors.Is(failed("put", proofName, err), blob.ErrExists):
			return true, nil
		case err != nil:
			return false, err
		}
	}
	return false, nil
}

// unknownHeader reports whether the store says that it does not know what it is asked for.
func unknownHeader(err error) bool {
	var answer minio.ErrorResponse
	return errors.As(err, &answer) && (answer.StatusCode == http.StatusNotImplemented || answer.Code == "NotImplemented")
}
