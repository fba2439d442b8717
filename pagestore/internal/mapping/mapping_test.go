package mapping_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"thaw/internal/testenv"
	"thaw/pagestore/internal/mapping"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// mapFile maps a file of n bytes, each 'x'.
func mapFile(t *testing.T, n int) (f *os.File, data []byte) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(bytes.Repeat([]byte{'x'}, n)); err != nil {
		t.Fatal(err)
	}
	if data, err = mapping.Map(f, int64(n)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mapping.Unmap(data); err != nil {
			t.Error(err)
		}
	})
	return f, data
}

// last reads the last byte under guard.
func last(data []byte) (c byte, err error) {
	defer mapping.Recover(mapping.Guard(), &err)
	return data[len(data)-1], nil
}

func TestGuardedReadOfAFileThatShrinksIsAnError(t *testing.T) {
	f, data := mapFile(t, 3*4096)
	if c, err := last(data); c != 'x' || err != nil {
		t.Errorf("before: %q, %v", c, err)
	}
	if err := f.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	mapping.WillNeed(data)
	mapping.Populate(data)
	mapping.Fill(f, 0, int64(len(data)))
	if _, err := last(data); !errors.Is(err, syscall.EIO) {
		t.Errorf("after: %v, want %v", err, syscall.EIO)
	}
}

func TestGuardLetsOtherPanicsPass(t *testing.T) {
	panics := map[string]func(){
		"a string":       func() { panic("other") },
		"nil pointer":    func() { var p *int; *p = 1 },
		"beyond a slice": func() { var b []byte; _ = b[len(b)] },
	}
	for name, fn := range panics {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			var err error
			func() {
				defer mapping.Recover(mapping.Guard(), &err)
				fn()
			}()
		})
	}
}

func TestEmptyFileHasNoMapping(t *testing.T) {
	_, data := mapFile(t, 0)
	if data != nil {
		t.Errorf("%d bytes are mapped", len(data))
	}
	mapping.Populate(data)
	mapping.WillNeed(data)
}

func TestGuardDoesNotAllocate(t *testing.T) {
	_, data := mapFile(t, 4096)
	if n := testing.AllocsPerRun(100, func() { last(data) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
