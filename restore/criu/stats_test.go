package criu

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// statsFile makes a file as CRIU writes it.
func statsFile(first, second magic, message []byte) []byte {
	data := binary.LittleEndian.AppendUint32(nil, uint32(first))
	data = binary.LittleEndian.AppendUint32(data, uint32(second))
	data = binary.LittleEndian.AppendUint32(data, uint32(len(message)))
	return append(data, message...)
}

// dumpStats makes the message of a dump that took so many microseconds. Other fields stand between those that are read.
func dumpStats(freezing, frozen, memdump, memwrite uint64) []byte {
	var dump []byte
	for i, n := range []uint64{freezing, frozen, memdump, memwrite, 17, 4} {
		dump = protowire.AppendVarint(protowire.AppendTag(dump, protowire.Number(i+1), protowire.VarintType), n)
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, fieldDump, protowire.BytesType), dump)
}

func TestDumpStatsAreRead(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadDumpStats(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v, want %v", err, fs.ErrNotExist)
	}
	// CRIU fills the file up with zeros.
	data := append(statsFile(magicService, magicStats, dumpStats(100_000, 250_000, 60_000, 95_000)), make([]byte, 10)...)
	if err := os.WriteFile(filepath.Join(dir, statsName), data, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadDumpStats(dir)
	want := DumpStats{Stopping: 100 * time.Millisecond, Stopped: 250 * time.Millisecond, Writing: 95 * time.Millisecond}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestDumpStatsThatAreNoneAreRefused(t *testing.T) {
	good := statsFile(magicService, magicStats, dumpStats(1, 2, 3, 4))
	for name, data := range map[string][]byte{
		"nothing":              nil,
		"another kind of file": statsFile(magicService, magicCore, dumpStats(1, 2, 3, 4)),
		"an image":             statsFile(magicCommon, magicStats, dumpStats(1, 2, 3, 4)),
		"a message cut off":    good[:len(good)-1],
		"an empty message":     statsFile(magicService, magicStats, nil),
		"no message":           statsFile(magicService, magicStats, []byte{0xff, 0xff}),
		"no times":             statsFile(magicService, magicStats, []byte{0x0a, 0x00}),
	} {
		if _, err := parseDumpStats(name, data); !errors.Is(err, ErrImages) {
			t.Errorf("%s: %v, want %v", name, err, ErrImages)
		}
	}
}

func FuzzDumpStats(f *testing.F) {
	f.Add(statsFile(magicService, magicStats, dumpStats(1, 2, 3, 4)))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := parseDumpStats("fuzz", data)
		if err != nil && (d != DumpStats{} || !errors.Is(err, ErrImages)) || err == nil && (d.Stopped < 0 || d.Writing < 0) {
			t.Errorf("got %+v, %v", d, err)
		}
	})
}
