package peer

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// A file that changed within so long a time before it was read may change again with the same time stamp: the clock of file systems is coarse.
// It is read again until it is older.
const coarse = 2 * time.Second

// maxFile bounds the files that are read here: certificates, keys, lists of members.
const maxFile = 4 << 20

// watched is a value that is made of the content of files, and made anew by the next get after they have changed. As long as what they hold makes no
// value (a half-written file, a key of another certificate), the value of before stays.
type watched[T any] struct {
	paths []string
	parse func(content [][]byte) (T, error)
	log   *slog.Logger

	mu      sync.Mutex
	files   []os.FileInfo // as they were when they were read last; nil: read them again
	content [][]byte      // that value was made of
	value   T
	problem string // what was wrong the last time; said once
}

// watch returns a watched whose files make a value now.
func watch[T any](paths []string, log *slog.Logger, parse func([][]byte) (T, error)) (*watched[T], error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	w := &watched[T]{paths: paths, parse: parse, log: log}
	return w, w.refresh()
}

// get returns the value of the files as they are, or as they were when they made one.
func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.unchanged() {
		problem := ""
		if err := w.refresh(); err != nil {
			problem = err.Error()
		}
		if problem != "" && problem != w.problem {
			w.log.Error("changed files are of no use, what they said before holds", "err", problem)
		}
		w.problem = problem
	}
	return w.value
}

func (w *watched[T]) unchanged() bool {
	if w.files == nil {
		return false
	}
	for i, path := range w.paths {
		info, err := os.Stat(path)
		if err != nil || !os.SameFile(info, w.files[i]) || info.Size() != w.files[i].Size() || !info.ModTime().Equal(w.files[i].ModTime()) {
			return false
		}
	}
	return true
}

// refresh reads the files.
func (w *watched[T]) refresh() error {
	w.files = nil
	var files []os.FileInfo
	var content [][]byte
	old := true
	for _, path := range w.paths {
		info, b, err := readFile(path)
		if err != nil {
			return err
		}
		files, content = append(files, info), append(content, b)
		old = old && time.Since(info.ModTime()).Abs() > coarse
	}
	if w.content == nil || !slices.EqualFunc(content, w.content, bytes.Equal) {
		value, err := w.parse(content)
		if err != nil {
			return err
		}
		w.value, w.content = value, content
	}
	if old {
		w.files = files
	}
	return nil
}

func readFile(path string) (os.FileInfo, []byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return info, b, err
}
