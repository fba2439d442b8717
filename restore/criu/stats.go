package criu

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// DumpStats says how long the parts of a dump took, by CRIU's own clock.
type DumpStats struct {
	Stopping time.Duration // until the processes stood still
	Stopped  time.Duration // from then on until they were let go, or were killed and gone
	Writing  time.Duration // of pages, which is a part of that
}

// Parts of CRIU's format: the file's name, and its two magic numbers.
const (
	statsName               = "stats-dump"
	magicService      magic = 0x55105940
	magicStats        magic = 0x57093306
	statsHeader             = 12       // the magic numbers and the size of the message that follows, in bytes
	maxStats                = 64 << 10 // real ones have less than a hundred
	fieldDump               = 1        // of StatsEntry
	fieldFreezingTime       = 1        // of DumpStatsEntry, in microseconds
	fieldFrozenTime         = 2
	fieldMemwriteTime       = 4
)

// ReadDumpStats reads what CRIU has left in the work folder of a dump. Errors wrap [ErrImages] if it cannot be read, and fs.ErrNotExist if
// there is none.
func ReadDumpStats(workDir string) (DumpStats, error) {
	path := filepath.Join(workDir, statsName)
	f, err := os.Open(path)
	if err != nil {
		return DumpStats{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxStats))
	if err != nil {
		return DumpStats{}, err
	}
	return parseDumpStats(path, data)
}

// parseDumpStats reads the content of a file.
func parseDumpStats(name string, data []byte) (DumpStats, error) {
	if len(data) < statsHeader {
		return DumpStats{}, badFile(name, "is shorter than its header")
	}
	first, second := magic(binary.LittleEndian.Uint32(data)), magic(binary.LittleEndian.Uint32(data[4:]))
	if first != magicService || second != magicStats {
		return DumpStats{}, badFile(name, "has magic numbers %#x %#x: it is another kind of file", uint32(first), uint32(second))
	}
	message := data[statsHeader:]
	if size := binary.LittleEndian.Uint32(data[8:]); uint64(size) > uint64(len(message)) {
		return DumpStats{}, badFile(name, "ends within its message")
	} else {
		message = message[:size]
	}
	dump, ok := findField(message, fieldDump, protowire.BytesType)
	if !ok {
		return DumpStats{}, badFile(name, "says nothing of a dump")
	}
	var d DumpStats
	for field, into := range map[protowire.Number]*time.Duration{
		fieldFreezingTime: &d.Stopping, fieldFrozenTime: &d.Stopped, fieldMemwriteTime: &d.Writing,
	} {
		value, ok := findField(dump, field, protowire.VarintType)
		if !ok {
			return DumpStats{}, badFile(name, "does not say how long the dump took")
		}
		*into = microseconds(value)
	}
	return d, nil
}

// microseconds decodes a number that findField has found. CRIU has 32 bits for it.
func microseconds(varint []byte) time.Duration {
	n, _ := protowire.ConsumeVarint(varint)
	return time.Duration(uint32(n)) * time.Microsecond
}

// findField returns the content of a field of a message, false if it is not there or the message cannot be read.
func findField(message []byte, want protowire.Number, kind protowire.Type) ([]byte, bool) {
	for len(message) > 0 {
		num, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil, false
		}
		message = message[n:]
		if n = protowire.ConsumeFieldValue(num, typ, message); n < 0 {
			return nil, false
		}
		if num == want && typ == kind {
			if kind == protowire.BytesType {
				content, _ := protowire.ConsumeBytes(message[:n])
				return content, true
			}
			return message[:n], true
		}
		message = message[n:]
	}
	return nil, false
}
