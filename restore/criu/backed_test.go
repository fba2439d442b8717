package criu

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fown"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/regfile"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
)

// aFile is a Backing in memory.
type aFile struct {
	*bytes.Reader
	closed bool
}

func (f *aFile) Close() error {
	f.closed = true
	return nil
}

// openBacked writes the dump, with a file of the number 7 whose path is /packs/x.pack, and opens it with content behind that path.
func openBacked(t *testing.T, d *dump, content []byte) (*Images, *aFile, error) {
	t.Helper()
	dir := t.TempDir()
	d.write(t, dir, 1)
	kind := fdinfo.FdTypes_REG
	zero := proto.Uint32(0)
	writeImage(t, filepath.Join(dir, filesImage), magicFiles, &fdinfo.FileEntry{Type: &kind, Id: proto.Uint32(7), Reg: &regfile.RegFileEntry{
		Id: proto.Uint32(7), Name: proto.String("/packs/x.pack"), Flags: zero, Pos: proto.Uint64(0),
		Fown: &fown.FownEntry{Uid: zero, Euid: zero, Signum: zero, PidType: zero, Pid: zero},
	}})
	f := &aFile{Reader: bytes.NewReader(content)}
	im, err := OpenBacked(dir, func(path string) (Backing, error) {
		if path != "/packs/x.pack" {
			t.Errorf("asked for %s", path)
		}
		return f, nil
	})
	if err == nil {
		t.Cleanup(func() {
			must(t, im.Close())
			if !f.closed {
				t.Error("the file is not closed with the images")
			}
		})
	}
	return im, f, err
}

// backed returns a mapping of n pages of the file, from page first of it on.
func backed(start, n uint64, flags uint32, first uint64) *vma.VmaEntry {
	v := aVMA(start, n, mapPrivate|flags, statusRegular|statusFilePrivate)
	v.Shmid, v.Pgoff = proto.Uint64(7), proto.Uint64(first*page)
	return v
}

const mapLocked = 0x2000

func TestMemoryThatWasMappedIsAnonymousAgain(t *testing.T) {
	const n = 512
	content := make([]byte, n*page)
	binary.LittleEndian.PutUint64(content[8:], n*page|2) // a chunk of glibc's malloc
	for i := page; i < len(content); i++ {
		content[i] = 0xaa
	}
	for name, vmas := range map[string][]*vma.VmaEntry{
		"in one piece": {backed(0x100000, n, 0, 0)},
		"in pieces":    {backed(0x100000, 1, 0, 0), backed(0x100000+page, 200, 0, 1), backed(0x100000+201*page, n-201, 0, 201)},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDump()
			d.tasks[0].vmas = vmas
			im, _, err := openBacked(t, d, content)
			must(t, err)
			task := &im.Tasks[0]
			if len(task.Regions) != 1 || task.Regions[0].Start != 0x100000 || task.Regions[0].End != 0x100000+n*page {
				t.Errorf("regions are %+v, want one", task.Regions)
			}
			var got []byte
			at := uint64(0x100000)
			for _, r := range task.Lazy {
				if r.Addr != at {
					t.Fatalf("a run at %#x, want one at %#x", r.Addr, at)
				}
				b := make([]byte, r.Pages*page)
				if _, err := im.Reader(r.File).ReadAt(b, r.Offset); err != nil {
					t.Fatal(err)
				}
				got, at = append(got, b...), r.end()
			}
			if !bytes.Equal(got, content) {
				t.Error("the memory is not what the file holds")
			}
			skeleton := t.TempDir()
			must(t, im.WriteSkeleton(skeleton))
			mem, err := readImage(filepath.Join(skeleton, "mm-10.img"), "mm-10.img", magicMM, parseMM)
			must(t, err)
			if len(mem.mappings) != 1 || !mem.mappings[0].lazy() || mem.mappings[0].end != 0x100000+n*page {
				t.Errorf("the skeleton has the mappings %+v, want one that is lazy", mem.mappings)
			}
			ranges, err := Mappable(skeleton)
			must(t, err)
			if diff := cmp.Diff(map[int][]PageRange{10: {{0x100000 + page, n - 1}}}, ranges); diff != "" {
				t.Errorf("it could be mapped again: -want +got\n%s", diff)
			}
		})
	}
}

func TestPagesThatWereWrittenHideThoseOfTheFile(t *testing.T) {
	m := &mapping{start: 0x10000, end: 0x10000 + 10*page, offset: 5 * page}
	pages := []Run{{Addr: 0x10000 + 2*page, Pages: 1, File: 3}, {Addr: 0x10000 + 4*page, Pages: 2, File: 3, Offset: page}, {Addr: 0x10000 + 9*page, Pages: 3, File: 3, Offset: 3 * page}}
	guards := []mapping{{start: 0x10000 + 6*page, end: 0x10000 + 8*page}}
	got, rest := appendBacked(nil, pages, guards, m, firstBacking)
	want := []Run{
		{Addr: 0x10000, Pages: 2, File: firstBacking, Offset: 5 * page},
		{Addr: 0x10000 + 2*page, Pages: 1, File: 3},
		{Addr: 0x10000 + 3*page, Pages: 1, File: firstBacking, Offset: 8 * page},
		{Addr: 0x10000 + 4*page, Pages: 2, File: 3, Offset: page},
		{Addr: 0x10000 + 8*page, Pages: 1, File: firstBacking, Offset: 13 * page},
		{Addr: 0x10000 + 9*page, Pages: 1, File: 3, Offset: 3 * page},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Run{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]Run{{Addr: 0x10000 + 10*page, Pages: 2, File: 3, Offset: 4 * page}}, rest, cmp.AllowUnexported(Run{})); diff != "" {
		t.Errorf("what is left, -want +got:\n%s", diff)
	}
}

func TestMappedMemoryThatWasLockedIsInTheSkeleton(t *testing.T) {
	const n = 100
	content := bytes.Repeat([]byte{7}, n*page)
	d := newDump()
	d.tasks[0].vmas = []*vma.VmaEntry{backed(0x100000, n, mapLocked, 0)}
	im, _, err := openBacked(t, d, content)
	must(t, err)
	if len(im.Tasks[0].Lazy) != 0 || len(im.Tasks[0].Eager) != 1 {
		t.Fatalf("task is %+v", im.Tasks[0])
	}
	skeleton := t.TempDir()
	must(t, im.WriteSkeleton(skeleton))
	back, err := Open(skeleton)
	must(t, err)
	defer back.Close()
	r := back.Tasks[0].Eager[0]
	got := make([]byte, r.Pages*page)
	if _, err := back.Reader(r.File).ReadAt(got, r.Offset); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the skeleton has other pages, %v", err)
	}
}

func TestAFileThatIsShorterThanItsMappingIsAnError(t *testing.T) {
	d := newDump()
	d.tasks[0].vmas = []*vma.VmaEntry{backed(0x100000, 100, mapLocked, 0)}
	im, _, err := openBacked(t, d, make([]byte, 50*page))
	must(t, err)
	if err := im.WriteSkeleton(t.TempDir()); err == nil || !strings.Contains(err.Error(), "/packs/x.pack") {
		t.Errorf("error %v, want one that names the file", err)
	}
}
