package tracer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"thaw/restore/tracer/trace"
)

// readEvery is how often the buffer is looked at. Touches do not wake us up, unless it fills: that would cost the thread
// that touches more than everything else.
const readEvery = 20 * time.Millisecond

// A Recorder records touches in this process, which needs CAP_BPF and CAP_PERFMON. Where that is not wanted, a Client has
// it done by a process of its own.
//
// Stop and Choose may be called at any time before Close; everything else is for one goroutine.
type Recorder struct {
	prog     *program
	ring     *ringbuf.Reader
	record   ringbuf.Record
	info     Info
	start    time.Duration // of the recording, on the monotonic clock
	forever  bool          // it does not end by itself: a cgroup is recorded
	stopping atomic.Bool

	// Owned by the goroutine that calls Next.
	held   []trace.Event // that have been read, and come next
	ending trace.Ending  // valid when Next has returned io.EOF

	// mu is held while a process is chosen, until all of the rest says so: Next, which takes it after it has read the first
	// touches of the process, then tells of the process first.
	mu       sync.Mutex
	named    bool           // a process has been
	handles  map[uint32]int // pidfds of those that have not ended, as far as that is known; owned
	missed   uint64         // processes whose end the program has not seen, and which it still counts as live
	untold   []trace.Event  // of processes that were chosen
	detached bool           // written by Next's goroutine only
}

// NewRecorder begins to record. nil options mean the defaults.
//
// A process that ends before the recording has begun is recorded with no touches, as long as it existed when NewRecorder
// was called: otherwise ErrNoProcess is returned. Returns errors that wrap ErrNotPermitted, ErrNotSupported or ErrTarget.
//
// With Target.Later the recording begins with what takes long, and processes are named by Choose.
func NewRecorder(t Target, opts *Options) (*Recorder, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	var group *os.File
	if t.Cgroup != "" {
		var err error
		if group, err = openCgroup(t.Cgroup); err != nil {
			return nil, err
		}
		defer group.Close()
	}
	return newRecorder(sorted(t.PIDs), group, opts)
}

// newRecorder records the processes, or the cgroup if it is not nil, which stays the caller's.
func newRecorder(pids []uint32, group *os.File, opts *Options) (*Recorder, error) {
	if err := checkNamespace(); err != nil {
		return nil, err
	}
	handles, err := openProcesses(pids)
	if err != nil {
		return nil, err
	}
	defer closeAll(handles)
	o := opts.withDefaults()
	r := &Recorder{forever: group != nil, handles: make(map[uint32]int)}
	r.prog, err = load(settings{ringBytes: ringSize(o.RingBytes), maxPages: uint32(o.MaxPages), byCgroup: r.forever})
	if err != nil {
		return nil, err
	}
	if r.ring, err = ringbuf.NewReader(r.prog.coll.Maps[programMapEvents]); err != nil {
		return nil, errors.Join(fmt.Errorf("open ring buffer: %w", err), r.prog.close())
	}
	r.start = monotonic()
	r.info = Info{Point: r.prog.point, Refused: r.prog.refused, Started: time.Now()}
	if err := r.begin(pids, handles, group); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// begin makes the program, which is attached by now, see the processes.
func (r *Recorder) begin(pids []uint32, handles []int, group *os.File) error {
	if group != nil {
		if err := r.prog.coll.Maps[programMapCgroups].Put(uint32(0), uint32(group.Fd())); err != nil {
			return fmt.Errorf("%w: cgroup %s (one of version 2 is needed): %w", ErrTarget, group.Name(), err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, pid := range pids {
		space, err := r.chooseLocked(pid, handles[i])
		if err != nil {
			return err
		}
		if space != 0 {
			r.info.Chosen = append(r.info.Chosen, Chosen{Space: space, PID: pid})
		}
	}
	return nil
}

// chooseLocked begins to record a process, and returns its space; 0 if it is recorded already. The handle stays the caller's.
func (r *Recorder) chooseLocked(pid uint32, handle int) (space uint32, err error) {
	// One that had the number before must not be taken for this one.
	if err := r.forgetEndedLocked(); err != nil {
		return 0, err
	}
	if space, err = r.prog.choose(pid); err != nil {
		return 0, fmt.Errorf("choose process %d: %w", pid, err)
	}
	r.named = true
	if _, known := r.handles[pid]; known || space == 0 {
		return space, nil
	}
	own, err := unix.FcntlInt(uintptr(handle), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("keep a handle of process %d: %w", pid, err)
	}
	r.handles[pid] = own
	return space, r.forgetEndedLocked()
}

// forgetEndedLocked lets go of processes that have ended. The program sees the end of a process before anybody else does, and does not if the
// process was chosen in between: then it would be recorded for ever. What is left of it shall not match a process that gets its number,
// either.
func (r *Recorder) forgetEndedLocked() error {
	for pid, handle := range r.handles {
		if !hasEnded(handle) {
			continue
		}
		missed, err := r.prog.forget(pid)
		if err != nil {
			return fmt.Errorf("forget process %d: %w", pid, err)
		}
		if missed {
			r.missed++
		}
		delete(r.handles, pid)
		unix.Close(handle)
	}
	return nil
}

// Choose records more processes, at most 1024 at a time, with those that they will fork. Their touches are recorded when it
// returns; at is a moment just before, counted from the start of the recording, at which their spaces begin. Next tells of
// each in an event, before its first touch. One that is recorded already stays as it is.
//
// Returns an error that wraps ErrNoProcess if one of them does not exist, and then chooses none; ErrTarget if too many are
// named, or if a cgroup is recorded; ErrEnded if the recording has ended. If there is no room for all, then some are chosen.
func (r *Recorder) Choose(pids ...int) (at time.Duration, err error) {
	if err := checkPIDs(pids); err != nil {
		return 0, err
	}
	return r.choose(sorted(pids))
}

func (r *Recorder) choose(pids []uint32) (at time.Duration, err error) {
	if r.forever {
		return 0, fmt.Errorf("%w: a cgroup is recorded, and no process beside it", ErrTarget)
	}
	handles, err := openProcesses(pids)
	if err != nil {
		return 0, err
	}
	defer closeAll(handles)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.detached || r.stopping.Load() {
		return 0, ErrEnded
	}
	at = monotonic() - r.start
	for i, pid := range pids {
		space, err := r.chooseLocked(pid, handles[i])
		if err != nil {
			return 0, err
		}
		if space != 0 {
			r.untold = append(r.untold, trace.Event{Time: at, Kind: trace.KindChosen, Space: space, PID: pid})
		}
	}
	// So that Next tells of them now. It fails only if the reader is closed.
	_ = r.ring.Flush()
	return at, nil
}

// Info says what is recorded, and how.
func (r *Recorder) Info() Info { return r.info }

// Stop ends the recording: Next returns what there is, and io.EOF. It does not wait, and may be called again, but not
// after Close.
func (r *Recorder) Stop() {
	r.stopping.Store(true)
	// It fails if the reader is closed, and then there is nobody to wake.
	_ = r.ring.Flush()
}

// Next waits for events and returns how many it has put into buf, at least one. It returns io.EOF when the recording has
// ended: by Stop, or because no chosen process is left, once there was one.
func (r *Recorder) Next(buf []trace.Event) (int, error) {
	for {
		if len(r.held) > 0 {
			n := copy(buf, r.held)
			r.held = r.held[n:]
			return n, nil
		}
		if r.ending.End != 0 {
			return 0, io.EOF
		}
		n, err := r.read(buf)
		if err != nil {
			return n, err
		}
		if first := r.takeUntold(); len(first) > 0 {
			r.held = append(first, buf[:n]...)
			continue
		}
		if n > 0 {
			return n, nil
		}
		if r.detached {
			return 0, r.finish()
		}
		over, err := r.isOver()
		if err != nil {
			return 0, err
		}
		if over {
			r.ending.Length = monotonic() - r.start
			if err := r.prog.detach(); err != nil {
				return 0, fmt.Errorf("detach: %w", err)
			}
		}
	}
}

// read returns what is in the buffer, after waiting a little if there is nothing and there may be more.
func (r *Recorder) read(buf []trace.Event) (n int, err error) {
	deadline := time.Now()
	if !r.detached && !r.stopping.Load() {
		deadline = deadline.Add(readEvery)
	}
	r.ring.SetDeadline(deadline)
	for n < len(buf) && (n == 0 || r.ring.AvailableBytes() > 0) {
		err := r.ring.ReadInto(&r.record)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, ringbuf.ErrFlushed) {
			break
		} else if err != nil {
			return n, fmt.Errorf("read ring buffer: %w", err)
		}
		if buf[n], err = parseEvent(r.record.RawSample, r.start); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// takeUntold returns the events of processes that were chosen. They come before whatever has been read by now.
func (r *Recorder) takeUntold() []trace.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	events := r.untold
	r.untold = nil
	return events
}

// isOver reports whether the recording shall end. From then on nobody is chosen any more.
func (r *Recorder) isOver() (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ended, err := r.allEndedLocked()
	if err != nil {
		return false, err
	}
	r.detached = ended || r.stopping.Load()
	return r.detached, nil
}

func (r *Recorder) allEndedLocked() (bool, error) {
	if r.forever || !r.named {
		return false, nil
	}
	if err := r.forgetEndedLocked(); err != nil {
		return false, err
	}
	live, err := r.prog.variable(programVarLive)
	return live <= r.missed, err
}

// finish reads what the program has counted. The program does not run any more.
func (r *Recorder) finish() error {
	lostRing, err := r.prog.variable(programVarLostRing)
	if err != nil {
		return err
	}
	lostSpace, err := r.prog.variable(programVarLostSpace)
	if err != nil {
		return err
	}
	r.ending.LostRing, r.ending.LostSpace = lostRing, lostSpace
	r.ending.End = trace.EndExited
	if r.stopping.Load() {
		r.ending.End = trace.EndStopped
	}
	return io.EOF
}

// Ending says how the recording ended, once Next has returned io.EOF.
func (r *Recorder) Ending() trace.Ending { return r.ending }

// Close ends the recording, whatever its state. It must not be called while Next runs.
func (r *Recorder) Close() error {
	r.mu.Lock()
	for _, handle := range r.handles {
		unix.Close(handle)
	}
	r.handles = nil
	r.mu.Unlock()
	return errors.Join(r.ring.Close(), r.prog.close())
}

// initialNamespace is the inode of the initial pid namespace (PROC_PID_INIT_INO of the kernel).
const initialNamespace = 0xEFFFFFFC

// checkNamespace returns an error unless our pids are those that BPF programs see.
func checkNamespace() error {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return fmt.Errorf("look at the pid namespace: %w", err)
	}
	if st.Ino != initialNamespace {
		return fmt.Errorf("%w: the tracer runs in a pid namespace of its own, where processes have other numbers: run it on the host", ErrNotSupported)
	}
	return nil
}

// openProcesses returns a pidfd for each process. The caller closes them.
func openProcesses(pids []uint32) ([]int, error) {
	handles := make([]int, 0, len(pids))
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(int(pid), 0)
		if err != nil {
			closeAll(handles)
			return nil, processError(pid, err)
		}
		handles = append(handles, fd)
	}
	return handles, nil
}

func processError(pid uint32, err error) error {
	if _, statErr := os.Stat(fmt.Sprintf("/proc/%d", pid)); errors.Is(err, unix.ESRCH) || statErr != nil {
		return fmt.Errorf("trace process %d: %w", pid, ErrNoProcess)
	}
	return fmt.Errorf("trace process %d: %w: it is a thread of another process: %w", pid, ErrNoProcess, err)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // nothing was written
	}
}

// hasEnded reports whether all threads of a process have ended.
func hasEnded(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			return n > 0
		}
	}
}

// openCgroup opens the folder of a cgroup of version 2.
func openCgroup(path string) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTarget, err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		dir.Close()
		return nil, fmt.Errorf("%w: %s is no cgroup of version 2", ErrTarget, path)
	}
	return dir, nil
}

// monotonic returns the clock that bpf_ktime_get_ns reads.
func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(fmt.Sprintf("read the clock: %v", err)) // it exists on every Linux
	}
	return time.Duration(ts.Nano())
}

// ringSize rounds up to what the kernel takes: a power of two, of whole pages.
func ringSize(bytes int) uint32 {
	size := uint32(os.Getpagesize())
	for size < uint32(bytes) {
		size *= 2
	}
	return size
}

// sorted returns the numbers ascending, each once.
func sorted(pids []int) []uint32 {
	var all []uint32
	for _, pid := range pids {
		all = append(all, uint32(pid))
	}
	slices.Sort(all)
	return slices.Compact(all)
}
