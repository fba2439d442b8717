package criu

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"
	"github.com/google/go-cmp/cmp"

	"thaw/restore"
)

func TestSkeletonHoldsAllButTheLazyPages(t *testing.T) {
	dir := copyTiny(t)
	must(t, os.WriteFile(filepath.Join(dir, "descriptors.json"), []byte(`["/dev/null"]`), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "dump.log"), []byte("log"), 0o600))
	must(t, os.Symlink("nowhere", filepath.Join(dir, "parent")))
	must(t, os.Mkdir(filepath.Join(dir, "folder"), 0o700))
	must(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	im, err := Open(dir)
	must(t, err)
	defer im.Close()
	skeleton := t.TempDir()
	must(t, im.WriteSkeleton(skeleton))

	want, got := listing(t, dir), listing(t, skeleton)
	want = slices.DeleteFunc(want, func(n string) bool { return n == "parent" || n == "folder" || n == "fifo" })
	want = append(want, SkeletonMarker, mappableFile)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files: -want +got\n%s", diff)
	}
	for _, name := range got {
		if strings.HasPrefix(name, "pages-") || strings.HasPrefix(name, "pagemap-") || name == SkeletonMarker || name == mappableFile {
			continue
		}
		before, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		after, err := os.ReadFile(filepath.Join(skeleton, name))
		must(t, err)
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("%s was changed: -want +got\n%s", name, diff)
		}
	}
	checkSkeletonPages(t, im, skeleton)
	if _, err := Open(skeleton); !errors.Is(err, ErrRemotePages) {
		t.Errorf("a skeleton opens like complete images: %v", err)
	}
}

// Processes in a user namespace open images as a user who owns nothing: from a descriptor of the folder, whatever its path.
func TestSkeletonMayBeReadByThoseWhoMayReadTheImages(t *testing.T) {
	for _, tc := range []struct{ dir, file, wantDir, wantFile fs.FileMode }{
		{0o700, 0o600, 0o700, 0o600},
		{0o755, 0o644, 0o755, 0o644},
		{0o777, 0o666, 0o755, 0o644},
		{0o510, 0o440, 0o710, 0o640},
	} {
		dir := copyTiny(t)
		for _, name := range listing(t, dir) {
			must(t, os.Chmod(filepath.Join(dir, name), tc.file))
		}
		must(t, os.Chmod(dir, tc.dir))
		im, err := Open(dir)
		must(t, err)
		defer im.Close()
		skeleton := t.TempDir()
		must(t, im.WriteSkeleton(skeleton))
		for _, name := range append(listing(t, skeleton), ".") {
			want := tc.wantFile
			switch name {
			case ".":
				want = tc.wantDir
			case SkeletonMarker, mappableFile:
				want = 0o600
			}
			info, err := os.Stat(filepath.Join(skeleton, name))
			must(t, err)
			if got := info.Mode().Perm(); got != want {
				t.Errorf("images %v and %v: %s has mode %v, want %v", tc.dir, tc.file, name, got, want)
			}
		}
	}
}

// checkSkeletonPages compares the pages of a skeleton with those of its images.
func checkSkeletonPages(t *testing.T, im *Images, skeleton string) {
	t.Helper()
	remote, err := OpenRemote(skeleton)
	must(t, err)
	defer remote.Close()
	for i, task := range im.Tasks {
		var want, got []uint64
		for _, r := range task.Lazy {
			for p := range r.Pages {
				want = append(want, r.Addr+p*page)
			}
		}
		for _, r := range remote.Tasks[i].Lazy {
			if r.File != Remote {
				t.Errorf("run %+v is not remote", r)
			}
			for p := range r.Pages {
				got = append(got, r.Addr+p*page)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("lazy pages of task %d: -want +got\n%s", task.PID, diff)
		}
		if task.Zombie {
			continue
		}
		if diff := cmp.Diff(bytesOf(t, im, task.Eager), eagerBytes(t, skeleton, task.PID)); diff != "" {
			t.Errorf("eager pages of task %d: -want +got\n%s", task.PID, diff)
		}
	}
}

func bytesOf(t *testing.T, im *Images, runs []Run) map[uint64]string {
	t.Helper()
	out := make(map[uint64]string)
	for _, r := range runs {
		for p := range r.Pages {
			b := make([]byte, page)
			_, err := im.chain.files[r.File].ReadAt(b, r.Offset+int64(p)*page)
			must(t, err)
			out[r.Addr+p*page] = string(b[:16])
		}
	}
	return out
}

// eagerBytes reads the pages that a skeleton has for a task.
func eagerBytes(t *testing.T, skeleton string, pid int) map[uint64]string {
	t.Helper()
	c, err := openChain(skeleton)
	must(t, err)
	defer c.close()
	lm, err := c.load(0, "pagemap-"+itoa(pid)+".img")
	must(t, err)
	var runs []Run
	for _, e := range lm.entries {
		if e.flags == flagPresent {
			runs = append(runs, Run{Addr: e.addr, Pages: e.pages, File: lm.file, Offset: e.offset})
		}
	}
	return bytesOf(t, &Images{chain: c}, runs)
}

func listing(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestSkeletonOverwritesNothing(t *testing.T) {
	im := openDump(t, newDump(entry(0x100000, 10, lazy)))
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "pages-1.img"), []byte("precious"), 0o600))
	if err := im.WriteSkeleton(dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("error is %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "pages-1.img")); err != nil || string(b) != "precious" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}

func TestPagesFileThatShrinksWhileItIsReadIsAnError(t *testing.T) {
	dir := t.TempDir()
	d := newDump(entry(0x100000, 10, lazy))
	d.tasks[0].vmas = []*vma.VmaEntry{file(0x100000, 100)}
	d.write(t, dir, 0)
	im, err := Open(dir)
	must(t, err)
	defer im.Close()
	must(t, os.Truncate(filepath.Join(dir, "pages-1.img"), 3*page))
	if err := im.WriteSkeleton(t.TempDir()); !errors.Is(err, ErrImages) || !strings.Contains(err.Error(), "pages-1.img: ends at byte 12288") {
		t.Errorf("error is %v", err)
	}
}

func TestSourceServesWhatCRIULeavesOut(t *testing.T) {
	d := newDump(entry(0x100000, 4, lazy), entry(0x104000, 2, flagPresent), entry(0x106000, 4, lazy))
	d.tasks = append(d.tasks, dumpTask{pid: 11, state: taskDead}, dumpTask{
		pid: 12, state: taskStopped, pagesID: 2, vmas: []*vma.VmaEntry{anon(0x200000, 9)}, pages: []*pagemap.PagemapEntry{entry(0x201000, 3, lazy)},
	})
	src, layouts, err := openDump(t, d).Source()
	must(t, err)
	defer src.Close()
	want := map[int]restore.Layout{
		10: {
			Regions: []restore.Region{{Start: 0x100000, End: 0x164000}},
			Extents: []restore.Extent{{Addr: 0x100000, Pages: 4}, {Addr: 0x106000, Pages: 4, Image: 6}},
		},
		12: {
			Regions: []restore.Region{{Start: 0x200000, End: 0x209000}},
			Extents: []restore.Extent{{Addr: 0x201000, Pages: 3, Image: 10}},
		},
	}
	if diff := cmp.Diff(want, layouts); diff != "" {
		t.Errorf("layouts: -want +got\n%s", diff)
	}
	for pid, l := range layouts {
		must(t, l.Validate())
		for _, e := range l.Extents {
			for p := range e.Pages {
				data, n, err := src.Load(e.Image+p, 1)
				must(t, err)
				if got := le(data); n != 1 || len(data) != page || got != e.Addr+p*page {
					t.Errorf("task %d: page at %#x holds that of %#x", pid, e.Addr+p*page, got)
				}
			}
		}
	}
	if data, n, err := src.Load(8, 100); err != nil || n != 2 || len(data) != 2*page {
		t.Errorf("at the end of a file, there are %d pages and %d bytes: %v", n, len(data), err)
	}
	if _, _, err := src.Load(13, 1); err == nil {
		t.Error("a page behind the image can be loaded")
	}
	src.Prefetch(0, 1000)
	must(t, src.Close())
	must(t, src.Close())
	src.Prefetch(0, 1)
}

func TestSkeletonSourceHasAllThatTheSkeletonLacks(t *testing.T) {
	im := openDump(t, newDump(entry(0x100000, 4, lazy), entry(0x104000, 2, flagPresent), entry(0x107000, 1, flagPresent)))
	src, layouts, err := im.SkeletonSource()
	must(t, err)
	defer src.Close()
	want := []restore.Extent{{Addr: 0x100000, Pages: 4}, {Addr: 0x104000, Pages: 2, Image: 4}, {Addr: 0x107000, Pages: 1, Image: 6}}
	if diff := cmp.Diff(want, layouts[10].Extents); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestImagesThatCRIUWouldRestoreWronglyAreNotServed(t *testing.T) {
	d := newDump(entry(0x100000, 4, lazy))
	d.tasks[0].vmas = []*vma.VmaEntry{aVMA(0x100000, 100, mapPrivate|mapAnonymous, statusRegular|statusAnonPrivate|1<<15)}
	im := openDump(t, d)
	if _, _, err := im.Source(); !errors.Is(err, ErrEagerPages) {
		t.Errorf("error is %v", err)
	}
	if err := im.WriteSkeleton(t.TempDir()); err != nil {
		t.Errorf("a skeleton of them cannot be made: %v", err)
	}
}
