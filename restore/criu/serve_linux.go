package criu

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"thaw/restore"
	"thaw/uffd"
)

// Serve waits for one `criu restore --lazy-pages` on l, and hands its processes to session until CRIU says that all
// are restored. layouts holds the layout of every task with memory, by image pid, and session.Run must be running, or
// about to: faults are served as soon as the first process arrives, since the restorer itself needs some pages.
//
// Serve closes l as soon as CRIU is connected, or when it fails: a restore has one connection. If it returns an error,
// it has aborted the session: ErrRestoreFailed if CRIU gave up, ErrProtocol if the peer is no CRIU or not one that
// restores these images, the context's error if it ended.
//
// Serve keeps no reference to layouts' map.
func Serve(ctx context.Context, l *Listener, session *restore.Session, layouts map[int]restore.Layout) error {
	defer l.Close()
	conn, err := l.accept(ctx)
	if err != nil {
		err = fmt.Errorf("wait for CRIU: %w", err)
	} else {
		defer conn.Close() // after Abort: once it is closed, CRIU may let the processes run
		err = errors.Join(l.Close(), serve(ctx, conn, session, layouts))
	}
	if err != nil {
		session.Abort(err)
	}
	return err
}

func serve(ctx context.Context, conn *net.UnixConn, session *restore.Session, layouts map[int]restore.Layout) error {
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	h := handshake{conn, session, layouts, make(map[int]bool)}
	err := h.run()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // what followed from it says less
	}
	if err != nil {
		return fmt.Errorf("serve CRIU: %w", err)
	}
	return nil
}

// A handshake is CRIU's side of a restore, as far as it has come.
type handshake struct {
	conn    *net.UnixConn
	session *restore.Session
	layouts map[int]restore.Layout
	seen    map[int]bool // image pids
}

func (h *handshake) run() error {
	for {
		rec, err := readRecord(h.conn)
		if err != nil {
			return err
		}
		if rec.kind == recordFinished {
			return h.finish()
		}
		if err := h.add(rec); err != nil {
			return err
		}
	}
}

// add takes in one task.
func (h *handshake) add(rec record) error {
	fd := -1
	if rec.kind == recordTask {
		fd = rec.fd
	}
	defer func() {
		if fd >= 0 {
			unix.Close(fd)
		}
	}()
	if h.seen[rec.pid] {
		return fmt.Errorf("%w: task %d came twice", ErrProtocol, rec.pid)
	}
	h.seen[rec.pid] = true
	layout, known := h.layouts[rec.pid]
	switch {
	case rec.kind == recordZombie && known:
		return fmt.Errorf("%w: task %d comes as a zombie, and is alive in the images that are served here", ErrProtocol, rec.pid)
	case rec.kind == recordZombie:
		return nil
	case !known:
		return fmt.Errorf("%w: task %d is not in the images that are served here: does CRIU restore others?", ErrProtocol, rec.pid)
	}
	u, err := uffd.FromFD(fd)
	fd = -1 // the uffd's, or closed
	if err != nil {
		return fmt.Errorf("%w: task %d sent a descriptor that is none of userfaultfd's: %w", ErrProtocol, rec.pid, err)
	}
	return h.session.Add(restore.Process{
		ID:      rec.pid,
		FD:      u,
		PIDFD:   openPID(rec.host),
		HostPID: rec.host,
		Layout:  &layout,
	})
}

// openPID returns a pidfd of the process, or nil if there is none to be had. The process is in the middle of its
// restore and its parent waits for it, so its pid has not been given to another.
func openPID(pid int) *os.File {
	if pid <= 0 {
		return nil // in a pid namespace that is not below ours
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // gone already, or Linux before 5.3
	}
	return os.NewFile(uintptr(fd), "pidfd")
}

// finish lets the session know that all tasks are there.
func (h *handshake) finish() error {
	for _, pid := range slices.Sorted(maps.Keys(h.layouts)) {
		if !h.seen[pid] {
			return fmt.Errorf("%w: the restore is finished, but task %d never came", ErrProtocol, pid)
		}
	}
	h.session.Registered()
	return nil
}
