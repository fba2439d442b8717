package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"thaw/internal/testenv"
)

func TestRestoredContainerAnswersWhatWasWrittenBeforeTheRestore(t *testing.T) {
	f := newFixture(t)
	images := f.freeze(t)
	o, s := f.restoreOptions(t, "second", images)
	s.write(t, "early")
	c, err := f.tools.RestoreContainer(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	deleteLater(t, c)
	s.expect(t, "early")
	s.write(t, "late")
	s.expect(t, "late")
}

func TestContainerThatIsLeftRunningGoesOn(t *testing.T) {
	f := newFixture(t)
	stdio, s := pipes(t)
	c, err := f.tools.RunContainer(t.Context(), RunOptions{ID: "one", Bundle: f.bundle(t, "one"), Work: f.path("work"), Stdio: stdio})
	if err != nil {
		t.Fatal(err)
	}
	deleteLater(t, c)
	o := DumpOptions{Images: f.path("images"), Work: f.path("work-dump"), LeaveRunning: true}
	if err := f.tools.CheckpointContainer(t.Context(), c.ID, o); err != nil {
		t.Fatal(err)
	}
	s.write(t, "still here")
	s.expect(t, "still here")
}

func TestRestoresOfOneImageRunAtTheSameTime(t *testing.T) {
	f := newFixture(t)
	images := f.freeze(t)
	const restores = 3
	var all [restores]*streams
	var options [restores]RestoreContainerOptions
	for i := range all {
		options[i], all[i] = f.restoreOptions(t, fmt.Sprintf("copy-%d", i), images)
	}
	var group errgroup.Group
	for _, o := range options {
		group.Go(func() error {
			c, err := f.tools.RestoreContainer(t.Context(), o)
			if err == nil {
				deleteLater(t, c)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for i, s := range all {
		s.write(t, fmt.Sprint("I am ", i))
	}
	for i, s := range all {
		s.expect(t, fmt.Sprint("I am ", i))
	}
}

func TestLazyRestoreIsServedByCRIUsOwnServer(t *testing.T) {
	testenv.NeedUserfaultfd(t)
	f := newFixture(t)
	images := f.freeze(t)
	o, s := f.restoreOptions(t, "lazy", images)
	o.Lazy = true
	server, err := f.tools.StartLazyPages(t.Context(), LazyPagesOptions{Images: images, Work: o.Work})
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.tools.RestoreContainer(t.Context(), o)
	if err != nil {
		t.Fatal(errors.Join(err, server.Stop()))
	}
	deleteLater(t, c)
	s.write(t, "lazily")
	s.expect(t, "lazily")
	if err := server.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestFailedRestoreSaysWhyAndLeavesNothing(t *testing.T) {
	f := newFixture(t)
	images := f.freeze(t)
	cores, err := filepath.Glob(filepath.Join(images, "core-*.img"))
	if err != nil || len(cores) == 0 {
		t.Fatalf("no core images in %s: %v", images, err)
	}
	if err := os.Truncate(cores[0], 20); err != nil {
		t.Fatal(err)
	}
	o, _ := f.restoreOptions(t, "broken", images)
	_, err = f.tools.RestoreContainer(t.Context(), o)
	failure, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("restore of a truncated image returned %v, want an *Error", err)
	}
	if failure.Log != filepath.Join(o.Work, "restore.log") || !strings.Contains(err.Error(), "Error (") {
		t.Errorf("the error names the log %q and says %q; want CRIU's log and CRIU's own error", failure.Log, err)
	}
	f.expectNothingLeft(t, o)
}

func TestCancelledRestoreLeavesNothing(t *testing.T) {
	testenv.NeedUserfaultfd(t)
	f := newFixture(t)
	images := f.freeze(t)
	o, _ := f.restoreOptions(t, "cancelled", images)
	o.Lazy = true

	ctx := deafServer(t, o.Work)
	if _, err := f.tools.RestoreContainer(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled restore returned %v", err)
	}
	f.expectNothingLeft(t, o)
}

// expectNothingLeft fails the test if a failed restore left a mount, a state folder or a cgroup.
func (f *fixture) expectNothingLeft(t *testing.T, o RestoreContainerOptions) {
	t.Helper()
	all, err := mounts()
	if err != nil {
		t.Fatal(err)
	}
	if points := pointsBelow(all, f.dir); len(points) > 0 {
		t.Errorf("mounts are left: %q", points)
	}
	if _, err := os.Lstat(filepath.Join(f.tools.StateDir, o.ID)); err == nil {
		t.Error("runc's state folder is left")
	}
	dirs, err := cgroupDirs(f.cgroup(o.ID))
	if err != nil || len(dirs) > 0 {
		t.Errorf("cgroups are left: %q, %v", dirs, err)
	}
}

func TestContainerIDThatIsInUseIsRefused(t *testing.T) {
	f := newFixture(t)
	stdio, s := pipes(t)
	o := RunOptions{ID: "one", Bundle: f.bundle(t, "one"), Work: f.path("work"), Stdio: stdio}
	c, err := f.tools.RunContainer(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	deleteLater(t, c)
	if _, err := f.tools.RunContainer(t.Context(), o); !errors.Is(err, ErrContainerExists) {
		t.Errorf("a second container of the same id: %v, want %v", err, ErrContainerExists)
	}
	o.ID = "two"
	if _, err := f.tools.RunContainer(t.Context(), o); !errors.Is(err, ErrCgroupTaken) {
		t.Errorf("a second container in the same cgroup: %v, want %v", err, ErrCgroupTaken)
	}
	s.write(t, "unharmed")
	s.expect(t, "unharmed")
}

func TestContainerIDThatIsAPathIsRefused(t *testing.T) {
	tools := Tools{StateDir: t.TempDir()}
	for _, id := range []string{"", "..", "a/b", "/"} {
		if _, err := tools.checkFree(id, t.TempDir()); err == nil {
			t.Errorf("id %q was accepted", id)
		}
	}
}

func TestDeletedContainerIsGoneAndDeletingAgainIsFine(t *testing.T) {
	f := newFixture(t)
	stdio, s := pipes(t)
	c, err := f.tools.RunContainer(t.Context(), RunOptions{ID: "one", Bundle: f.bundle(t, "one"), Work: f.path("work"), Stdio: stdio})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// With the last process of the container, the last writer of its output is gone.
	stdio.Out.Close()
	if rest, err := s.out.ReadString(0); err != io.EOF {
		t.Errorf("output of the deleted container: %q, %v; want its end", rest, err)
	}
}

func TestFrozenContainerIsDeleted(t *testing.T) {
	f := newFixture(t)
	stdio, _ := pipes(t)
	c, err := f.tools.RunContainer(t.Context(), RunOptions{ID: "one", Bundle: f.bundle(t, "one"), Work: f.path("work"), Stdio: stdio})
	if err != nil {
		t.Fatal(err)
	}
	deleteLater(t, c)
	// A dump that is killed leaves it so.
	pause, err := f.tools.runcCommand(t.Context(), "", "pause", "one")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := pause.CombinedOutput(); err != nil {
		t.Fatalf("runc pause: %v: %s", err, out)
	}
	if err := c.Delete(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestContainerStartedByAnotherIsFoundAndDeleted(t *testing.T) {
	f := newFixture(t)
	stdio, _ := pipes(t)
	started, err := f.tools.RunContainer(t.Context(), RunOptions{ID: "one", Bundle: f.bundle(t, "one"), Work: f.path("work"), Stdio: stdio})
	if err != nil {
		t.Fatal(err)
	}
	deleteLater(t, started)
	other := Tools{CRIU: f.tools.CRIU, Runc: f.tools.Runc, StateDir: f.tools.StateDir}
	ids, err := other.Containers()
	if err != nil || len(ids) != 1 || ids[0] != "one" {
		t.Errorf("containers are %q, %v; want one", ids, err)
	}
	found, err := other.Container(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	if found.PID != started.PID || found.cgroups != started.cgroups {
		t.Errorf("found process %d in cgroup %s, started %d in %s", found.PID, found.cgroups, started.PID, started.cgroups)
	}
	if err := found.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Container(t.Context(), "one"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a container that is gone: %v", err)
	}
}
