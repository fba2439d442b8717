package runner

import (
	"bufio"
	"errors"
	"io"
)

// MaxLine bounds a line in bytes, either way, with its end. What is larger belongs into a file or an object store.
const MaxLine = 64 << 20

// lines splits what a runner writes.
type lines struct {
	r   *bufio.Reader
	max int
}

func newLines(r io.Reader) *lines { return &lines{r: bufio.NewReaderSize(r, 64<<10), max: MaxLine} }

// next returns a line without its end, which is the caller's. Returns [ErrTooLong] if it is too long, and io.EOF at the end, also where a
// line has begun and not ended: whoever wrote it is gone.
func (l *lines) next() ([]byte, error) {
	var line []byte
	for {
		part, err := l.r.ReadSlice('\n')
		if len(line)+len(part) > l.max {
			return nil, ErrTooLong
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}
