package criu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"

	"thaw/internal/fdpass"
)

// finished is what CRIU sends, once, when all tasks are restored. It is larger than any pid, so the stream needs no
// other mark to be told apart. It is part of the protocol.
const finished int32 = 0x52535446

// A record is one message of CRIU's.
type record struct {
	kind recordKind
	pid  int // image pid
	fd   int // of a task: its userfaultfd, owned by the receiver
	host int // of a task: its pid here, 0 if it cannot be seen from here
}

type recordKind uint8

const (
	recordTask recordKind = iota
	recordZombie
	recordFinished
)

// readRecord reads the next record from the stream that CRIU sends: int32 pids, of which the positive are followed by
// one byte that carries a descriptor. Returns ErrRestoreFailed if the stream ends, and ErrProtocol if it holds what
// CRIU does not send; no descriptor is left open then.
func readRecord(conn *net.UnixConn) (record, error) {
	var word [4]byte
	if _, err := fdpass.ReceiveFull(conn, word[:], 0); err != nil {
		return record{}, streamError("receive a pid", err)
	}
	switch pid := int32(binary.NativeEndian.Uint32(word[:])); {
	case pid == finished:
		return record{kind: recordFinished}, nil
	case pid == -pid: // 0, and the smallest
		return record{}, fmt.Errorf("%w: pid %d", ErrProtocol, pid)
	case pid < 0:
		return record{kind: recordZombie, pid: int(-pid)}, nil
	default:
		return readTask(conn, int(pid))
	}
}

// readTask reads what follows the pid of a task. The byte itself means nothing.
func readTask(conn *net.UnixConn, pid int) (record, error) {
	var b [1]byte
	m, err := fdpass.ReceiveFull(conn, b[:], 1)
	if err != nil {
		return record{}, streamError(fmt.Sprintf("receive the userfaultfd of task %d", pid), err)
	}
	rec := record{kind: recordTask, pid: pid, fd: m.FDs[0]}
	if m.Cred != nil {
		rec.host = int(m.Cred.Pid)
	}
	return rec, nil
}

// streamError says what an error while doing means for the restore.
func streamError(doing string, err error) error {
	_, miscounted := errors.AsType[*fdpass.CountError](err)
	switch {
	case miscounted, errors.Is(err, fdpass.ErrUnexpected):
		err = fmt.Errorf("%w: %w", ErrProtocol, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.ECONNRESET):
		err = fmt.Errorf("%w: it closed the connection before the restore was finished; its log says why", ErrRestoreFailed)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
