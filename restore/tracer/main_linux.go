package tracer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"thaw/internal/fdpass"
	"thaw/restore/tracer/trace"
)

// Where Start puts the sockets: for what the client asks for, and for what is recorded. They are two so that an answer does not
// wait until the client has taken all events.
const (
	socketFD = iota + 3
	eventsFD
)

// keptCapabilities are what the helper keeps: for BPF, and for attaching to tracepoints.
var keptCapabilities = []uintptr{unix.CAP_BPF, unix.CAP_PERFMON}

// Main is the helper process, as Start runs it: args is what follows the name of the program and "tracer". It returns the
// exit code when its client is gone or has what it wanted.
//
// It runs twice. First it gives up all privileges but two, and executes itself: the privileges of a Go program belong to
// its threads, and exec is the one way to be sure of them all. What it then is does the work.
func Main(args []string) int {
	if len(args) != 1 || args[0] != confined {
		err := confine()
		fmt.Fprintf(os.Stderr, "tracer: cannot give up privileges: %v\n", err)
		return 1
	}
	h, err := newHelper()
	if err != nil {
		fmt.Fprintf(os.Stderr, "tracer: thaw and thawd start this, nobody else does: %v\n", err)
		return 2
	}
	defer h.close()
	signal.Ignore(unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE)
	if err := checkConfined(); err != nil {
		fmt.Fprintf(os.Stderr, "tracer: %v\n", err)
		return 1
	}
	if err := h.serve(); err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintf(os.Stderr, "tracer: %v\n", err)
		return 1
	}
	return 0
}

// confine gives up privileges and executes this program anew. It returns on error only.
func confine() error {
	runtime.LockOSThread() // what follows is about the thread that calls exec
	defer runtime.UnlockOSThread()
	for c := uintptr(0); ; c++ {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err == unix.EINVAL {
			break // the kernel knows no more
		}
		if slices.Contains(keptCapabilities, c) {
			continue
		}
		// Without CAP_SETPCAP the bounding set stays, and no_new_privs has to do.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EPERM {
			return os.NewSyscallError("prctl PR_CAPBSET_DROP", err)
		}
	}
	if err := dropCapabilities(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_SET_NO_NEW_PRIVS", err)
	}
	return syscall.Exec("/proc/self/exe", []string{os.Args[0], helperCommand, confined}, os.Environ())
}

// dropCapabilities leaves those to be kept, as far as they are there, in a way that exec keeps them for any user.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	var keep [2]uint32
	for _, c := range keptCapabilities {
		keep[c/32] |= 1 << (c % 32)
	}
	for i := range sets {
		left := sets[i].Permitted & keep[i]
		sets[i] = unix.CapUserData{Effective: left, Permitted: left, Inheritable: left}
	}
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return os.NewSyscallError("capset", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_CAP_AMBIENT_CLEAR_ALL", err)
	}
	for _, c := range keptCapabilities {
		if sets[c/32].Permitted&(1<<(c%32)) == 0 {
			continue // what it is needed for will say so
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0); err != nil {
			return os.NewSyscallError("prctl PR_CAP_AMBIENT_RAISE", err)
		}
	}
	return nil
}

// checkConfined returns an error if this process may do more than it should, whoever started it.
func checkConfined() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	for _, c := range keptCapabilities {
		sets[c/32].Permitted &^= 1 << (c % 32)
	}
	if sets[0].Permitted|sets[1].Permitted != 0 {
		return fmt.Errorf("still has capabilities %#x %#x", sets[0].Permitted, sets[1].Permitted)
	}
	return nil
}

// A helper is the helper process's side: one goroutine records and sends, another one listens.
type helper struct {
	conn   *net.UnixConn // requests and answers
	events *net.UnixConn // what is recorded, and how it ended
}

// newHelper takes the sockets.
func newHelper() (*helper, error) {
	conn, err := connOf(socketFD)
	if err != nil {
		return nil, err
	}
	events, err := connOf(eventsFD)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &helper{conn, events}, nil
}

func (h *helper) close() {
	h.conn.Close()
	h.events.Close()
}

// serve does what the client asks for, once. It returns nil if that, or the client, has come to an end.
func (h *helper) serve() error {
	if err := send(h.conn, packet(kindHello)); err != nil {
		return err
	}
	start, group, err := h.awaitStart()
	if err != nil {
		return err
	}
	if group != nil {
		defer group.Close()
	}
	r, err := newRecorder(start.pids, group, &Options{RingBytes: int(start.ringBytes), MaxPages: int(start.maxPages)})
	if err != nil {
		return send(h.conn, appendRefused(packet(kindRefused), err))
	}
	defer r.Close()
	if err := send(h.conn, appendStarted(packet(kindStarted), r.Info())); err != nil {
		return err
	}
	var listener sync.WaitGroup
	listener.Go(func() { h.listen(r) })
	err = h.record(r)
	h.conn.CloseRead() // ends the listener
	listener.Wait()
	return err
}

// awaitStart takes what the client wants. group is the caller's, and nil if processes are recorded.
func (h *helper) awaitStart() (s startBody, group *os.File, err error) {
	buf := make([]byte, maxMessage+1)
	m, err := fdpass.Receive(h.conn, buf, 0)
	if err != nil {
		return s, nil, err
	}
	k, body, err := parse(buf[:m.N])
	if err != nil {
		return s, nil, err
	}
	if k != kindStart {
		return s, nil, fmt.Errorf("%w: kind %d before the start", errMalformed, k)
	}
	if s, err = parseStart(body); err != nil || !s.cgroup {
		return s, nil, err
	}
	if m, err = fdpass.Receive(h.conn, buf, 1); err != nil {
		return s, nil, err
	}
	group = os.NewFile(uintptr(m.FDs[0]), "the one that was named")
	if k, _, err = parse(buf[:m.N]); err != nil || k != kindCgroup {
		group.Close()
		return s, nil, errors.Join(err, fmt.Errorf("%w: kind %d in place of the cgroup", errMalformed, k))
	}
	return s, group, nil
}

// listen chooses processes, and stops the recording when the client says so, or is gone.
func (h *helper) listen(r *Recorder) {
	defer r.Stop()
	buf := make([]byte, maxMessage+1)
	for {
		m, err := fdpass.Receive(h.conn, buf, 0)
		if err != nil {
			return
		}
		k, body, err := parse(buf[:m.N])
		switch {
		case err != nil:
			return
		case k == kindStop:
			r.Stop()
		case k == kindChoose:
			if err := h.choose(r, body); err != nil {
				return
			}
		default:
			return
		}
	}
}

// choose chooses the processes and answers.
func (h *helper) choose(r *Recorder, body []byte) error {
	pids, err := parsePIDs(body)
	if err != nil {
		return err
	}
	at, err := r.choose(pids)
	if err != nil {
		return send(h.conn, appendRefused(packet(kindRefused), err))
	}
	return send(h.conn, appendChosen(packet(kindChosen), at))
}

// record sends what the recorder finds, to the end.
func (h *helper) record(r *Recorder) error {
	events := make([]trace.Event, maxEvents)
	b := make([]byte, 0, maxMessage)
	for {
		n, err := r.Next(events)
		switch {
		case errors.Is(err, io.EOF):
			return send(h.events, appendEnded(packet(kindEnded), r.Ending()))
		case err != nil:
			return send(h.events, appendRefused(packet(kindRefused), err))
		}
		b = append(b[:0], packet(kindEvents)...)
		for _, e := range events[:n] {
			b = appendEvent(b, e)
		}
		if err := send(h.events, b); err != nil {
			return err
		}
	}
}

// send returns io.EOF if the client is gone.
func send(conn *net.UnixConn, b []byte) error {
	_, err := conn.Write(b)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return io.EOF
	}
	return err
}
