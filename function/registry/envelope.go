package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"thaw/function/version"
)

// Limits of the files, part of the format.
const (
	formatVersion = 1
	maxFileLen    = 16 << 20
)

// envelope is the form of all JSON files here: the digest is of the bytes of the content, as they stand in the file.
type envelope struct {
	Version int             `json:"version"`
	SHA256  version.Digest  `json:"sha256"`
	Content json.RawMessage `json:"content"`
}

// checker is content that can say what is wrong with it.
type checker interface{ check() error }

// encode returns the file with that content.
func encode(content checker) ([]byte, error) {
	if err := content.check(); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(envelope{formatVersion, sha256.Sum256(raw), raw})
	if err != nil {
		return nil, err
	}
	if len(text) >= maxFileLen {
		return nil, fmt.Errorf("%d bytes, want less than %d", len(text), maxFileLen)
	}
	return append(text, '\n'), nil
}

// decode reads what encode made into content. Errors wrap [ErrCorrupt] or [ErrVersion].
func decode(text []byte, content checker) error {
	var env envelope
	if len(text) > maxFileLen {
		return corruptf("%d bytes, want at most %d", len(text), maxFileLen)
	}
	if err := strictUnmarshal(text, &env); err != nil {
		return corruptf("%w", err)
	}
	if env.Version != formatVersion {
		return fmt.Errorf("%w: %d, want %d", ErrVersion, env.Version, formatVersion)
	}
	if got := version.Digest(sha256.Sum256(env.Content)); got != env.SHA256 {
		return corruptf("digest is %s, want %s", got, env.SHA256)
	}
	if err := strictUnmarshal(env.Content, content); err != nil {
		return corruptf("%w", err)
	}
	if err := content.check(); err != nil {
		return corruptf("%w", err)
	}
	return nil
}

// readFile reads the file at path into content. Errors name it, and are os.ErrNotExist if it is not there.
func readFile(path string, content checker) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileLen+1))
	if err != nil {
		return err
	}
	if err := decode(text, content); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// strictUnmarshal is json.Unmarshal that refuses fields it does not know.
func strictUnmarshal(text []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("trailing data")
	}
	return nil
}
