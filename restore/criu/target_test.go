package criu

import (
	"encoding/binary"
	"errors"
	"testing"

	"thaw/restore"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

// A fakeTask is a process that does towards the server what a task in the middle of its restore does.
type fakeTask struct {
	*uffdtest.Target
	socket uffdtest.Handle
	memory uffd.Range
}

const taskPages = 64

// startTask connects a process to the server, and sends its userfaultfd. It has taskPages pages of registered memory.
func startTask(t *testing.T, path string, pid int32) *fakeTask {
	t.Helper()
	task := &fakeTask{Target: uffdtest.Start(t), memory: uffd.Range{Start: 1 << 40, End: 1<<40 + taskPages*page}}
	task.Map(task.memory).Must()
	task.Open(uffdtest.CRIUFeatures).Must().Close()
	task.socket = task.Dial(path).Must()
	task.send(pid)
	task.Send(task.socket, []byte{0}, 1).Must()
	task.Register(task.memory, uffd.ModeMissing).Must()
	task.Drop().Must()
	return task
}

func (task *fakeTask) send(pid int32) {
	task.Send(task.socket, binary.NativeEndian.AppendUint32(nil, uint32(pid)), 0).Must()
}

// numbered is a source whose pages hold their number.
type numbered struct{ data []byte }

func newNumbered(pages int) *numbered {
	s := &numbered{make([]byte, pages*page)}
	for i := range pages {
		binary.LittleEndian.PutUint64(s.data[i*page:], uint64(i)+1)
	}
	return s
}

func (s *numbered) Ready(first uint64, limit int) ([]byte, int) {
	n := min(limit, len(s.data)/page-int(first))
	return s.data[first*page:][:n*page], n
}

func (s *numbered) Load(first uint64, limit int) ([]byte, int, error) {
	data, n := s.Ready(first, limit)
	return data, n, nil
}

func (s *numbered) Prefetch(uint64, uint64) {}

// serveTask serves a fakeTask, without a stream.
func serveTask(t *testing.T) (task *fakeTask, served, ran chan error) {
	t.Helper()
	path := socketPath(t)
	l, err := Listen(path)
	must(t, err)
	session, err := restore.NewSession(&restore.Options{Source: newNumbered(taskPages), Stream: restore.StreamNone})
	must(t, err)
	layout := restore.Layout{
		Regions: []restore.Region{{Start: 1 << 40, End: 1<<40 + taskPages*page}},
		Extents: []restore.Extent{{Addr: 1 << 40, Pages: taskPages}},
	}
	served, ran = make(chan error, 1), make(chan error, 1)
	go func() { served <- Serve(t.Context(), l, session, map[int]restore.Layout{10: layout}) }()
	go func() { ran <- session.Run(t.Context()) }()
	return startTask(t, path, 10), served, ran
}

// The restorer touches memory before CRIU says that the restore is finished: a server that waits for that never ends.
func TestFaultsAreServedBeforeTheRestoreIsFinished(t *testing.T) {
	task, served, ran := serveTask(t)
	data := task.Read(uffd.Range{Start: task.memory.Start + 5*page, End: task.memory.Start + 6*page}).Must()
	if got := le(data); got != 6 {
		t.Errorf("page 5 holds %d", got)
	}
	task.send(finished)
	if err := <-served; err != nil {
		t.Errorf("Serve returns %v", err)
	}
	task.Exit(0)
	<-task.Gone()
	if err := <-ran; err != nil {
		t.Errorf("Run returns %v", err)
	}
}

// A process whose restore has failed must not go on: it would read zeros.
func TestTasksOfAFailedRestoreAreKilled(t *testing.T) {
	task, served, ran := serveTask(t)
	// It may be killed before it can answer.
	if _, err := task.Hangup(task.socket).Wait(t.Context()); err != nil && !errors.Is(err, uffdtest.ErrTargetGone) {
		t.Fatal(err)
	}
	if err := <-served; !errors.Is(err, ErrRestoreFailed) {
		t.Errorf("Serve returns %v", err)
	}
	if err := <-ran; !errors.Is(err, restore.ErrAborted) {
		t.Errorf("Run returns %v", err)
	}
	<-task.Gone()
}
