//go:build !linux || !(amd64 || arm64)

package uffd

import (
	"fmt"
	"runtime"
)

var errPlatform = fmt.Errorf("userfaultfd: %w on %s/%s", ErrNotSupported, runtime.GOOS, runtime.GOARCH)

// FD is an owned userfaultfd. There is none on this platform.
type FD struct{}

// Open returns ErrNotSupported.
func Open(*Options) (*FD, error) { return nil, errPlatform }

// FromFD returns ErrNotSupported, and leaves the descriptor alone.
func FromFD(int) (*FD, error) { return nil, errPlatform }

// Probe returns ErrNotSupported.
func Probe() (Info, error) { return Info{}, errPlatform }

// Features returns 0.
func (f *FD) Features() Features { return 0 }

// Fd returns -1.
func (f *FD) Fd() int { return -1 }

// Close does nothing.
func (f *FD) Close() error { return nil }

// ReadMessages returns ErrNotSupported.
func (f *FD) ReadMessages([]Message) (int, error) { return 0, errPlatform }

// Register returns ErrNotSupported.
func (f *FD) Register(Range, Mode) (Ioctls, error) { return 0, errPlatform }

// Unregister returns ErrNotSupported.
func (f *FD) Unregister(Range) error { return errPlatform }

// Wake returns ErrNotSupported.
func (f *FD) Wake(Range) error { return errPlatform }

// Copy returns Closed.
func (f *FD) Copy(uint64, []byte, CopyFlags) Result { return Result{Outcome: Closed} }

// Zeropage returns Closed.
func (f *FD) Zeropage(Range, ZeropageFlags) Result { return Result{Outcome: Closed} }

// Continue returns Closed.
func (f *FD) Continue(Range, ContinueFlags) Result { return Result{Outcome: Closed} }

// Poison returns Closed.
func (f *FD) Poison(Range, PoisonFlags) Result { return Result{Outcome: Closed} }

// Move returns Closed.
func (f *FD) Move(_, _, _ uint64, _ MoveFlags) Result { return Result{Outcome: Closed} }

// WriteProtect returns Closed.
func (f *FD) WriteProtect(Range, bool, WriteProtectFlags) Result { return Result{Outcome: Closed} }
