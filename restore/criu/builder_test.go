package criu

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/inventory"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pstree"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"
	"google.golang.org/protobuf/proto"

	"thaw/restore"
)

const page = restore.PageSize

// A dump is a folder of images in the making: what CRIU would write.
type dump struct {
	version uint32
	tasks   []dumpTask
	shared  map[string][]*pagemap.PagemapEntry // by the name of their pagemap
}

type dumpTask struct {
	pid     uint32
	state   uint32
	vmas    []*vma.VmaEntry
	pages   []*pagemap.PagemapEntry
	pagesID uint32
}

// newDump returns a dump of one task with one lazy mapping of 100 pages at 0x100000.
func newDump(pages ...*pagemap.PagemapEntry) *dump {
	return &dump{version: 2, tasks: []dumpTask{{pid: 10, state: taskAlive, vmas: []*vma.VmaEntry{anon(0x100000, 100)}, pages: pages, pagesID: 1}}}
}

// aVMA returns a mapping of n pages.
func aVMA(start, n uint64, flags, status uint32) *vma.VmaEntry {
	return &vma.VmaEntry{
		Start: proto.Uint64(start), End: proto.Uint64(start + n*page), Pgoff: proto.Uint64(0), Shmid: proto.Uint64(0),
		Prot: proto.Uint32(3), Flags: proto.Uint32(flags), Status: proto.Uint32(status), Fd: proto.Int64(-1),
	}
}

func anon(start, n uint64) *vma.VmaEntry {
	return aVMA(start, n, mapPrivate|mapAnonymous, statusRegular|statusAnonPrivate)
}

// file returns a private mapping of a file: not lazy.
func file(start, n uint64) *vma.VmaEntry { return aVMA(start, n, mapPrivate, statusRegular|1<<6) }

// entry returns a pagemap entry as CRIU 4.2 writes it.
func entry(addr, n uint64, flags uint32) *pagemap.PagemapEntry {
	return &pagemap.PagemapEntry{Vaddr: proto.Uint64(addr), CompatNrPages: proto.Uint32(0), Flags: proto.Uint32(flags), NrPages: proto.Uint64(n)}
}

// lazy is what CRIU writes for a page that it could restore lazily.
const lazy = flagLazy | flagPresent

// write writes the images to dir. mark goes into every page, to tell dumps of a chain apart.
func (d *dump) write(t testing.TB, dir string, mark uint64) {
	t.Helper()
	writeImage(t, filepath.Join(dir, "inventory.img"), magicInventory, &inventory.InventoryEntry{ImgVersion: &d.version})
	var tree []proto.Message
	for i := range d.tasks {
		task := &d.tasks[i]
		tree = append(tree, &pstree.PstreeEntry{
			Pid: &task.pid, Ppid: proto.Uint32(0), Pgid: &task.pid, Sid: &task.pid, Threads: []uint32{task.pid},
		})
		task.write(t, dir, mark)
	}
	writeImage(t, filepath.Join(dir, "pstree.img"), magicPstree, tree...)
	id := uint32(100)
	for name, pages := range d.shared {
		id++
		writePages(t, dir, name, id, pages, mark)
	}
}

func (task *dumpTask) write(t testing.TB, dir string, mark uint64) {
	t.Helper()
	entry := &core.CoreEntry{Mtype: core.CoreEntry_X86_64.Enum(), Tc: &core.TaskCoreEntry{
		TaskState: &task.state, ExitCode: proto.Uint32(0), Personality: proto.Uint32(0), Flags: proto.Uint32(0),
		BlkSigset: proto.Uint64(0), Comm: proto.String("task"),
	}}
	writeImage(t, filepath.Join(dir, fmt.Sprintf("core-%d.img", task.pid)), magicCore, entry)
	if task.state != taskAlive && task.state != taskStopped {
		return
	}
	writeImage(t, filepath.Join(dir, fmt.Sprintf("mm-%d.img", task.pid)), magicMM, mmEntry(task.vmas))
	writePages(t, dir, fmt.Sprintf("pagemap-%d.img", task.pid), task.pagesID, task.pages, mark)
}

func mmEntry(vmas []*vma.VmaEntry) *mm.MmEntry {
	zero := proto.Uint64(0)
	return &mm.MmEntry{
		MmStartCode: zero, MmEndCode: zero, MmStartData: zero, MmEndData: zero, MmStartStack: zero, MmStartBrk: zero,
		MmBrk: zero, MmArgStart: zero, MmArgEnd: zero, MmEnvStart: zero, MmEnvEnd: zero, ExeFileId: proto.Uint32(0), Vmas: vmas,
	}
}

// writePages writes a pagemap and its pages: each begins with its address and mark.
func writePages(t testing.TB, dir, name string, id uint32, pages []*pagemap.PagemapEntry, mark uint64) {
	t.Helper()
	msgs := []proto.Message{&pagemap.PagemapHead{PagesId: &id}}
	var data []byte
	for _, e := range pages {
		msgs = append(msgs, e)
		n := e.GetNrPages()
		if e.NrPages == nil {
			n = uint64(e.GetCompatNrPages())
		}
		if e.GetFlags()&flagPresent == 0 && (e.Flags != nil || e.GetInParent()) {
			continue
		}
		for i := range n {
			data = append(data, make([]byte, page)...)
			p := data[len(data)-page:]
			binary.LittleEndian.PutUint64(p, e.GetVaddr()+i*page)
			binary.LittleEndian.PutUint64(p[8:], mark)
		}
	}
	writeImage(t, filepath.Join(dir, name), magicPagemap, msgs...)
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("pages-%d.img", id)), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func writeImage(t testing.TB, path string, m magic, msgs ...proto.Message) {
	t.Helper()
	var b strings.Builder
	w := newImageWriter(&b, m)
	for _, msg := range msgs {
		w.record(msg)
	}
	if err := w.flush(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// openDump writes the dump to a new folder and opens it.
func openDump(t *testing.T, d *dump) *Images {
	t.Helper()
	dir := t.TempDir()
	d.write(t, dir, 0)
	im, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { im.Close() })
	return im
}

// copyTiny copies the dump of a real process tree to a new folder, and gives it pages: those of the real one hold the
// kernel's and the machine's secrets, and are large.
func copyTiny(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/tiny")); err != nil {
		t.Fatal(err)
	}
	for id, pages := range map[int]int{1: 1, 2: 19, 3: 19} {
		data := make([]byte, pages*page)
		for i := range pages {
			binary.LittleEndian.PutUint64(data[i*page:], uint64(id)<<32|uint64(i))
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("pages-%d.img", id)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// describe renders what Open has found.
func describe(im *Images) string {
	var b strings.Builder
	runs := func(name string, runs []Run) {
		for _, r := range runs {
			fmt.Fprintf(&b, "  %s %#x +%d from file %d at %#x flagged %v\n", name, r.Addr, r.Pages, r.File, r.Offset, r.lazyFlag)
		}
	}
	for _, task := range im.Tasks {
		fmt.Fprintf(&b, "task %d zombie %v\n", task.PID, task.Zombie)
		for _, r := range task.Regions {
			fmt.Fprintf(&b, "  region %#x to %#x splittable %v wipe %v\n", r.Start, r.End, r.Splittable, r.WipeOnFork)
		}
		runs("lazy", task.Lazy)
		runs("eager", task.Eager)
	}
	for _, s := range im.shared {
		fmt.Fprintf(&b, "shared %s\n", s.name)
		runs("eager", s.runs)
	}
	return b.String()
}

func itoa(n int) string { return fmt.Sprint(n) }

// le returns the number at the start of a page.
func le(data []byte) uint64 { return binary.LittleEndian.Uint64(data) }
