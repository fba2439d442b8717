package fdpass

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// Message is what came with the bytes of a message.
type Message struct {
	// N is the number of bytes received.
	N int

	// FDs are the descriptors, as many as were expected. They belong to the receiver.
	FDs []int

	// Cred are the credentials of the sender, as the kernel vouches for them; nil unless PassCred was set on
	// the socket before the peer sent.
	Cred *unix.Ucred
}

const (
	// maxFDs is SCM_MAX_FD of include/net/scm.h: a peer cannot attach more to one message.
	maxFDs = 253

	// scmPidfd is SCM_PIDFD of include/linux/socket.h. It brings a descriptor, too, if somebody has set
	// SO_PASSPIDFD.
	scmPidfd = 0x04

	intSize = 4
)

// oobSize has room for all that a peer may attach, so that nothing is cut off that should be counted.
var oobSize = unix.CmsgSpace(maxFDs*intSize) + unix.CmsgSpace(unix.SizeofUcred) + unix.CmsgSpace(intSize)

// PassCred has the kernel attach the credentials of the sender to each message received on c.
func PassCred(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var optErr error
	err = raw.Control(func(fd uintptr) { optErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	if err := errors.Join(err, optErr); err != nil {
		return fmt.Errorf("ask for credentials: %w", err)
	}
	return nil
}

// Receive receives up to len(p) bytes in one piece, and exactly want descriptors with them. It waits until
// something arrives or the deadline of c passes.
//
// Returns io.EOF if the peer has closed; a *CountError if it sent another number of descriptors; ErrTruncated
// if the kernel left some out for want of room in our table of descriptors; ErrUnexpected if something else
// was attached. On error no descriptor is left open.
func Receive(c *net.UnixConn, p []byte, want int) (Message, error) {
	return receive(c, p, want, make([]byte, oobSize))
}

// ReceiveFull is Receive, but waits until all of p is filled. The descriptors may come with any of its bytes.
// Cred are those of the last piece.
//
// Returns io.ErrUnexpectedEOF if the peer closes in between.
func ReceiveFull(c *net.UnixConn, p []byte, want int) (Message, error) {
	oob := make([]byte, oobSize)
	var m Message
	for m.N < len(p) {
		piece, err := receiveAny(c, p[m.N:], oob)
		m.N += piece.N
		m.FDs = append(m.FDs, piece.FDs...)
		if errors.Is(err, io.EOF) && m.N > 0 {
			err = io.ErrUnexpectedEOF
		}
		// A peer that attaches descriptors to each byte must not fill our table before it is found out.
		if err == nil && len(m.FDs) > want {
			err = &CountError{Got: len(m.FDs), Want: want}
		}
		if err != nil {
			closeAll(m.FDs)
			return Message{}, err
		}
		m.Cred = piece.Cred
	}
	return m.counted(want)
}

func receive(c *net.UnixConn, p []byte, want int, oob []byte) (Message, error) {
	m, err := receiveAny(c, p, oob)
	if err != nil {
		closeAll(m.FDs)
		return Message{}, err
	}
	return m.counted(want)
}

// counted returns m if it has want descriptors, else closes them.
func (m Message) counted(want int) (Message, error) {
	if len(m.FDs) != want {
		closeAll(m.FDs)
		return Message{}, &CountError{Got: len(m.FDs), Want: want}
	}
	return m, nil
}

// receiveAny receives one piece and everything that is attached to it. The caller owns the descriptors, on
// error too.
func receiveAny(c *net.UnixConn, p, oob []byte) (Message, error) {
	// ReadMsgUnix asks for close-on-exec and waits out EINTR.
	n, oobn, flags, _, err := c.ReadMsgUnix(p, oob)
	if err != nil {
		if errors.Is(err, io.EOF) {
			return Message{}, io.EOF
		}
		return Message{}, fmt.Errorf("receive message: %w", err)
	}
	m, err := parse(oob[:oobn])
	m.N = n
	switch {
	case flags&unix.MSG_CTRUNC != 0:
		return m, ErrTruncated
	case err != nil:
		return m, err
	case n == 0 && oobn == 0 && len(p) > 0:
		return m, io.EOF
	}
	return m, nil
}

// parse collects the control messages of oob. If it fails the caller still owns the descriptors of m.
func parse(oob []byte) (m Message, err error) {
	for len(oob) > 0 {
		header, data, rest, parseErr := unix.ParseOneSocketControlMessage(oob)
		if parseErr != nil {
			return m, fmt.Errorf("%w: control message of %d bytes", ErrUnexpected, len(oob))
		}
		oob = rest
		switch {
		case header.Level == unix.SOL_SOCKET && header.Type == unix.SCM_RIGHTS && len(data)%intSize == 0:
			m.FDs = append(m.FDs, descriptors(data)...)
		case header.Level == unix.SOL_SOCKET && header.Type == unix.SCM_CREDENTIALS && len(data) == unix.SizeofUcred:
			m.Cred = &unix.Ucred{
				Pid: int32(binary.NativeEndian.Uint32(data)),
				Uid: binary.NativeEndian.Uint32(data[4:]),
				Gid: binary.NativeEndian.Uint32(data[8:]),
			}
		case header.Level == unix.SOL_SOCKET && header.Type == scmPidfd && len(data) == intSize:
			m.FDs = append(m.FDs, descriptors(data)...) // for the caller to close
			fallthrough
		default:
			err = fmt.Errorf("%w: control message of level %d, type %d", ErrUnexpected, header.Level, header.Type)
		}
	}
	return m, err
}

func descriptors(data []byte) []int {
	fds := make([]int, len(data)/intSize)
	for i := range fds {
		fds[i] = int(int32(binary.NativeEndian.Uint32(data[i*intSize:])))
	}
	return fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		// It was never used: there is nothing that closing could fail to write.
		_ = unix.Close(fd)
	}
}
