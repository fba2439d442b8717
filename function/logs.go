package function

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// logBytes is how large an app's log gets before a new one is begun; the one before is kept.
	logBytes = 16 << 20
	// logLine bounds a line, which is broken behind it.
	logLine = 16 << 10
)

// Logs are what functions print, in a file for each app:
//
//	2026-01-02T15:04:05.000Z Embedder-7 model loaded
//
// The word behind the time names the instance, or the object for what the server says about it.
type Logs struct {
	dir string

	mu    sync.Mutex
	files map[string]*logFile // protected by mu; by app
}

// OpenLogs keeps logs in a folder, which it makes.
func OpenLogs(dir string) (*Logs, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return &Logs{dir: dir, files: make(map[string]*logFile)}, nil
}

// LogPath returns the path of an app's log in the folder of logs. The log before it has ".1" behind.
func LogPath(dir, app string) string { return filepath.Join(dir, app+".log") }

// writer returns a writer for one instance, or object. It is safe for concurrent use, and never fails for its user.
func (l *Logs) writer(app, label string) *lineWriter {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.files[app]
	if f == nil {
		f = &logFile{path: LogPath(l.dir, app)}
		l.files[app] = f
	}
	return &lineWriter{file: f, label: label}
}

// Close closes the files. What is written later opens them again.
func (l *Logs) Close() (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.files {
		err = errors.Join(err, f.close())
	}
	return err
}

// A logFile is opened at its first line.
type logFile struct {
	path string

	mu   sync.Mutex
	f    *os.File // protected by mu; nil: not open
	size int64    // protected by mu
}

func (f *logFile) write(line []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.size+int64(len(line)) > logBytes && f.f != nil {
		_ = f.f.Close()
		f.f = nil
		_ = os.Rename(f.path, f.path+".1")
	}
	if f.f == nil && !f.openLocked() {
		return // a full disk must not stop functions
	}
	n, _ := f.f.Write(line)
	f.size += int64(n)
}

func (f *logFile) openLocked() bool {
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return false
	}
	f.f, f.size = file, 0
	if st, err := file.Stat(); err == nil {
		f.size = st.Size()
	}
	return true
}

func (f *logFile) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f == nil {
		return nil
	}
	err := f.f.Close()
	f.f = nil
	return err
}

// A lineWriter puts the time and a name before each line. What has no end yet waits for it, or for flush.
type lineWriter struct {
	file  *logFile
	label string

	mu   sync.Mutex
	rest []byte // protected by mu; a line that has not ended
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, p...)
	for {
		end := bytes.IndexByte(w.rest, '\n')
		switch {
		case 0 <= end && end <= logLine:
			w.lineLocked(w.rest[:end])
			w.rest = w.rest[end+1:]
		case len(w.rest) > logLine:
			w.lineLocked(w.rest[:logLine])
			w.rest = w.rest[logLine:]
		default:
			return len(p), nil
		}
	}
}

// flush ends the line that has not ended, if there is one.
func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.rest) > 0 {
		w.lineLocked(w.rest)
		w.rest = nil
	}
}

func (w *lineWriter) lineLocked(line []byte) {
	w.file.write(fmt.Appendf(nil, "%s %s %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), w.label, line))
}
