package pagestore

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"testing"
)

// badSector is storage that cannot read one byte.
type badSector struct {
	io.ReaderAt
	at int64
}

var errSector = errors.New("bad sector")

func (s badSector) ReadAt(b []byte, off int64) (int, error) {
	if off <= s.at && s.at < off+int64(len(b)) {
		return 0, errSector
	}
	return s.ReaderAt.ReadAt(b, off)
}

func TestPagesAroundABadSectorAreHashed(t *testing.T) {
	const n, bad, before = 11, 6, 100
	content := make([]byte, before, before+n*PageSize)
	for i := range n {
		content = append(content, bytes.Repeat([]byte{byte(i)}, PageSize)...)
	}
	h := newHashedPages(n)
	check := func(bad int) {
		t.Helper()
		for i := range n {
			switch {
			case i == bad:
				if !errors.Is(h.failed[i], errSector) {
					t.Errorf("page %d: %v, want %v", i, h.failed[i], errSector)
				}
			case h.failed[i] != nil:
				t.Errorf("page %d: %v", i, h.failed[i])
			case h.digests[i] != sha256.Sum256(content[before+i*PageSize:][:PageSize]):
				t.Errorf("page %d has digest %s, which is another's", i, h.digests[i])
			}
		}
	}
	disk := bytes.NewReader(content)
	h.read(badSector{disk, before + bad*PageSize + 17}, before, n)
	check(bad)
	h.read(disk, before, n)
	check(-1)
}
