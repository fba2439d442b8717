package criu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
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

// A messageReader is a stream socket: *net.UnixConn.
type messageReader interface {
	ReadMsgUnix(b, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error)
}

// A recordReader reads the stream that CRIU sends: int32 pids, of which the positive are followed by one byte that
// carries a descriptor.
type recordReader struct {
	r   messageReader
	oob []byte
}

func newRecordReader(r messageReader) *recordReader {
	// Room for one descriptor more than there may be, so that too many are seen.
	return &recordReader{r: r, oob: make([]byte, unix.CmsgSpace(2*4)+unix.CmsgSpace(unix.SizeofUcred))}
}

// next returns the next record. Returns ErrRestoreFailed if the stream ends, and ErrProtocol if it holds what CRIU does
// not send; no descriptor is left open then.
func (rr *recordReader) next() (record, error) {
	var word [4]byte
	m, err := rr.read(word[:])
	defer m.close()
	if err != nil {
		return record{}, err
	}
	if len(m.fds) > 0 {
		return record{}, fmt.Errorf("%w: a descriptor came with the pid instead of after it", ErrProtocol)
	}
	switch pid := int32(binary.NativeEndian.Uint32(word[:])); {
	case pid == finished:
		return record{kind: recordFinished}, nil
	case pid == 0 || -pid == pid:
		return record{}, fmt.Errorf("%w: pid %d", ErrProtocol, pid)
	case pid < 0:
		return record{kind: recordZombie, pid: int(-pid)}, nil
	default:
		return rr.task(int(pid))
	}
}

// task reads what follows the pid of a task. The byte itself means nothing.
func (rr *recordReader) task(pid int) (record, error) {
	var b [1]byte
	m, err := rr.read(b[:])
	defer m.close()
	switch {
	case err != nil:
		return record{}, fmt.Errorf("receive the userfaultfd of task %d: %w", pid, err)
	case m.flags&unix.MSG_CTRUNC != 0 && len(m.fds) == 0:
		return record{}, fmt.Errorf("receive the userfaultfd of task %d: it was dropped: the limit of open files (ulimit -n) is too low", pid)
	case m.flags&unix.MSG_CTRUNC != 0 || len(m.fds) > 1:
		return record{}, fmt.Errorf("%w: task %d sent more than one descriptor", ErrProtocol, pid)
	case len(m.fds) == 0:
		return record{}, fmt.Errorf("%w: task %d sent no descriptor", ErrProtocol, pid)
	}
	rec := record{kind: recordTask, pid: pid, fd: m.fds[0], host: m.pid}
	m.fds = nil
	return rec, nil
}

// A message is what came along with some bytes.
type message struct {
	fds   []int // owned
	pid   int   // the sender's, 0 if unknown
	flags int
}

func (m *message) close() {
	for _, fd := range m.fds {
		unix.Close(fd)
	}
	m.fds = nil
}

// read fills b, and collects all that comes along. The message is to be closed in case of an error too.
func (rr *recordReader) read(b []byte) (*message, error) {
	m := new(message)
	for len(b) > 0 {
		n, oobn, flags, _, err := rr.r.ReadMsgUnix(b, rr.oob)
		if perr := m.parse(rr.oob[:oobn]); perr != nil {
			return m, perr
		}
		m.flags |= flags
		if n == 0 || err != nil {
			if err == nil || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
				err = fmt.Errorf("%w: it closed the connection before the restore was finished; its log says why", ErrRestoreFailed)
			}
			return m, err
		}
		b = b[n:]
	}
	return m, nil
}

// parse takes descriptors and credentials out of control messages.
func (m *message) parse(oob []byte) error {
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("parse control messages: %w", err)
	}
	for i := range cmsgs {
		c := &cmsgs[i]
		if c.Header.Level != unix.SOL_SOCKET {
			continue
		}
		switch c.Header.Type {
		case unix.SCM_RIGHTS:
			fds, err := unix.ParseUnixRights(c)
			if err != nil {
				return fmt.Errorf("parse descriptors: %w", err)
			}
			m.fds = append(m.fds, fds...)
		case unix.SCM_CREDENTIALS:
			cred, err := unix.ParseUnixCredentials(c)
			if err != nil {
				return fmt.Errorf("parse credentials: %w", err)
			}
			m.pid = int(cred.Pid)
		}
	}
	return nil
}
