//go:build linux

package uffdtest

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// op is a command of the target. The numbers are those of the enum in target/target.c.
type op uint32

const (
	opMap op = iota + 1
	opMapMemfd
	opMunmap
	opMremap
	opMadvise
	opMprotect
	opOpen
	opDrop
	opRegister
	opUnregister
	opRead
	opWrite
	opSums
	opTouch
	opPipe
	opFork
	opExec
	opExit
	opDial
	opSend
	opHangup
	opMapEach
	opStorm
	opCalm
)

var opNames = [...]string{
	opMap: "map", opMapMemfd: "map memfd", opMunmap: "munmap", opMremap: "mremap", opMadvise: "madvise",
	opMprotect: "mprotect", opOpen: "open", opDrop: "drop", opRegister: "register", opUnregister: "unregister",
	opRead: "read", opWrite: "write", opSums: "sums", opTouch: "touch", opPipe: "pipe", opFork: "fork",
	opExec: "exec", opExit: "exit", opDial: "dial", opSend: "send", opHangup: "hangup",
	opMapEach: "map each", opStorm: "storm", opCalm: "calm",
}

func (o op) String() string { return opNames[o] }

// request is struct request of target/target.c, its payload, and a descriptor that goes along, or -1.
type request struct {
	id      uint64
	op      op
	args    [6]uint64
	payload []byte
	fd      int
}

const (
	requestSize = 64
	replySize   = 48

	// maxPayload bounds what a reply may bring, in bytes. Tests that read more read in parts.
	maxPayload = 1 << 30
)

func (r *request) send(conn *net.UnixConn) error {
	buf := make([]byte, requestSize, requestSize+len(r.payload))
	binary.NativeEndian.PutUint64(buf[0:], r.id)
	binary.NativeEndian.PutUint32(buf[8:], uint32(r.op))
	binary.NativeEndian.PutUint32(buf[12:], uint32(len(r.payload)))
	for i, arg := range r.args {
		binary.NativeEndian.PutUint64(buf[16+8*i:], arg)
	}
	buf = append(buf, r.payload...)

	var rights []byte
	if r.fd >= 0 {
		rights = unix.UnixRights(r.fd)
	}
	n, _, err := conn.WriteMsgUnix(buf, rights, nil)
	if err != nil {
		return err
	}
	_, err = conn.Write(buf[n:])
	return err
}

// reply is struct reply of target/target.c, its payload, and the descriptor that came along, or -1.
type reply struct {
	id      uint64
	errno   syscall.Errno
	signal  syscall.Signal
	code    int32
	values  [2]uint64
	payload []byte
	fd      int
}

// receiveReply returns the next reply; on error, what came along has to be closed nevertheless.
func receiveReply(conn *net.UnixConn) (*reply, error) {
	var buf [replySize]byte
	fd, err := readWithFD(conn, buf[:])
	if err != nil {
		return &reply{fd: fd}, err
	}
	r := &reply{
		id:     binary.NativeEndian.Uint64(buf[0:]),
		errno:  syscall.Errno(binary.NativeEndian.Uint32(buf[8:])),
		signal: syscall.Signal(binary.NativeEndian.Uint32(buf[12:])),
		code:   int32(binary.NativeEndian.Uint32(buf[16:])),
		values: [2]uint64{binary.NativeEndian.Uint64(buf[24:]), binary.NativeEndian.Uint64(buf[32:])},
		fd:     fd,
	}
	length := binary.NativeEndian.Uint64(buf[40:])
	if length > maxPayload {
		return r, fmt.Errorf("target answers with %d bytes", length)
	}
	r.payload = make([]byte, length)
	_, err = io.ReadFull(conn, r.payload)
	return r, err
}

// readWithFD fills buf, and returns the descriptor that came along, or -1.
func readWithFD(conn *net.UnixConn, buf []byte) (fd int, err error) {
	fd = -1
	oob := make([]byte, unix.CmsgSpace(4))
	for read := 0; read < len(buf); {
		n, oobn, _, _, err := conn.ReadMsgUnix(buf[read:], oob)
		if err != nil {
			return fd, err
		}
		read += n
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return fd, os.NewSyscallError("parse control message", err)
		}
		for _, m := range messages {
			fds, err := unix.ParseUnixRights(&m)
			if err != nil {
				return fd, os.NewSyscallError("parse descriptors", err)
			}
			fd = fds[0]
		}
	}
	return fd, nil
}
