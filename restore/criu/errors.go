package criu

import (
	"errors"
	"fmt"
	"io/fs"
)

var (
	// ErrImages marks images that cannot be used: truncated, damaged, contradicting each other, or one of the more
	// specific errors below. All errors of Open wrap it.
	ErrImages = errors.New("unusable CRIU images")

	// ErrUnsupported marks images that say something this package does not know, written by a newer CRIU perhaps.
	// What is not understood is refused: a misread page would be a wrong byte in a running process.
	ErrUnsupported = errors.New("not supported")

	// ErrRemotePages marks a dump made with --lazy-pages: its bytes were never written, they are with the page server
	// that made it.
	ErrRemotePages = errors.New("the page contents are with the page server")

	// ErrEagerPages marks images that CRIU would restore wrongly with --lazy-pages as they lie: they mark pages lazy
	// in mappings that CRIU does not register, and these pages would read as zeros.
	ErrEagerPages = errors.New("pages marked lazy where CRIU restores nothing lazily")

	// ErrSocketTaken says that another server listens on the socket, or that something else has its name.
	ErrSocketTaken = errors.New("lazy-pages socket is taken")

	// ErrSocketName says that the name of the socket is too long for the kernel.
	ErrSocketName = errors.New("lazy-pages socket name is too long")

	// ErrRestoreFailed says that CRIU closed the connection before it said that the restore was complete. CRIU's log
	// says why.
	ErrRestoreFailed = errors.New("CRIU gave up the restore")

	// ErrProtocol says that the peer sent what CRIU does not send.
	ErrProtocol = errors.New("lazy-pages protocol violated")
)

// An ImageError says which image file is unusable and why. It wraps ErrImages and, if there is one, the more specific
// error in Err.
type ImageError struct {
	File   string // name of the image file; in a parent's folder, with "parent/" before it
	Entry  int    // which record of the file, counted from 0, or -1: the file as a whole
	Reason string // what is wrong and, where something helps, what to do
	Err    error  // ErrUnsupported, ErrRemotePages, ErrEagerPages, an error of the file system, or nil
}

func (e *ImageError) Error() string {
	where := e.File
	if e.Entry >= 0 {
		where = fmt.Sprintf("%s, entry %d", e.File, e.Entry)
	}
	switch {
	case e.Err == nil:
		return fmt.Sprintf("%v: %s: %s", ErrImages, where, e.Reason)
	case e.Reason == "":
		return fmt.Sprintf("%v: %s: %v", ErrImages, where, e.Err)
	}
	return fmt.Sprintf("%v: %s: %v: %s", ErrImages, where, e.Err, e.Reason)
}

// Unwrap makes errors.Is and errors.As see ErrImages and Err.
func (e *ImageError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrImages}
	}
	return []error{ErrImages, e.Err}
}

// badFile reports a file as damaged as a whole.
func badFile(file, format string, args ...any) error {
	return &ImageError{File: file, Entry: -1, Reason: fmt.Sprintf(format, args...)}
}

// badEntry reports one record of a file as damaged.
func badEntry(file string, entry int, format string, args ...any) error {
	return &ImageError{File: file, Entry: entry, Reason: fmt.Sprintf(format, args...)}
}

// unsupported reports a record that this package does not understand.
func unsupported(file string, entry int, format string, args ...any) error {
	return &ImageError{File: file, Entry: entry, Reason: fmt.Sprintf(format, args...), Err: ErrUnsupported}
}

// fileError reports a file that the file system does not give. The path in err is stripped: the name is in the
// message already, as the user knows it.
func fileError(file string, err error) error {
	reason := ""
	if errors.Is(err, fs.ErrNotExist) {
		reason = "the folder is incomplete, or holds no dump"
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return &ImageError{File: file, Entry: -1, Reason: reason, Err: err}
}
