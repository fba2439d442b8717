package criu

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/inventory"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"thaw/restore"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func TestOpenReadsARealDump(t *testing.T) {
	im, err := Open(copyTiny(t))
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	golden(t, "testdata/tiny.golden", describe(im))
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("-%s +got; go test -rewrite accepts it\n%s", name, diff)
	}
}

func TestWhatIsLazyFollowsFromTheMapping(t *testing.T) {
	const (
		statusVsyscall, statusVDSO, statusVVAR, statusShadowStack, statusPlugin = 1 << 2, 1 << 3, 1 << 12, 1 << 15, 1 << 27
		mapLocked, mapHugeTLB                                                   = 0x2000, 0x40000
	)
	const private = mapPrivate | mapAnonymous
	const regular = statusRegular | statusAnonPrivate
	for _, tc := range []struct {
		name          string
		flags, status uint32
		madvise       uint64
		want          *restore.Region
	}{
		{"anonymous private memory is lazy", private, regular, 0, &restore.Region{}},
		{"the brk heap is lazy and splittable", private, regular | statusHeap, 0, &restore.Region{Splittable: true}},
		{"a stack is lazy and splittable", private | mapGrowsDown, regular, 0, &restore.Region{Splittable: true}},
		{"a thread arena is lazy and splittable", private | mapNoReserve, regular, 0, &restore.Region{Splittable: true}},
		{"memory that children do not inherit is lazy", private, regular, 1 << 18, &restore.Region{WipeOnFork: true}},
		{"other advice changes nothing", private, regular, 1<<10 | 1<<16, &restore.Region{}},
		{"locked memory is not lazy", private | mapLocked, regular, 0, nil},
		{"huge pages are not lazy", private | mapHugeTLB, regular, 0, nil},
		{"a private file mapping is not lazy", mapPrivate, statusRegular | 1<<6, 0, nil},
		{"shared memory is not lazy", 1 | mapAnonymous, statusRegular | 1<<8, 0, nil},
		{"the vDSO is not lazy", private, regular | statusVDSO, 0, nil},
		{"the vvar pages are not lazy", private, regular | statusVVAR, 0, nil},
		{"the vsyscall page is not lazy", private, regular | statusVsyscall, 0, nil},
		{"a shadow stack is not lazy", private, regular | statusShadowStack, 0, nil},
		{"a kind of mapping that is not known is not lazy", private, regular | 1<<20, 0, nil},
		{"a flag that is not known makes a mapping not lazy", private | 1<<25, regular, 0, nil},
		{"what a plugin restores is not lazy", private, regular | statusPlugin, 0, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := mapping{start: 0x1000, end: 0x5000, flags: tc.flags, status: tc.status, madvise: tc.madvise}
			var got *restore.Region
			if m.lazy() {
				r := m.region()
				got = &r
			}
			if tc.want != nil {
				tc.want.Start, tc.want.End = m.start, m.end
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// An entry may run across mappings, lazy or not, and its flags do not say which is which.
func TestRunsAreCutAtTheBordersOfMappings(t *testing.T) {
	d := newDump(entry(0x102000, 8, lazy), entry(0x10b000, 1, flagPresent))
	d.tasks[0].vmas = []*vma.VmaEntry{anon(0x100000, 4), anon(0x104000, 2), file(0x106000, 3), anon(0x109000, 10)}
	im := openDump(t, d)
	want := Task{
		PID:     10,
		Regions: []restore.Region{{Start: 0x100000, End: 0x104000}, {Start: 0x104000, End: 0x106000}, {Start: 0x109000, End: 0x113000}},
		Lazy: []Run{
			{Addr: 0x102000, Pages: 2, lazyFlag: true},
			{Addr: 0x104000, Pages: 2, Offset: 2 * page, lazyFlag: true},
			{Addr: 0x109000, Pages: 1, Offset: 7 * page, lazyFlag: true},
			{Addr: 0x10b000, Pages: 1, Offset: 8 * page},
		},
		Eager: []Run{{Addr: 0x106000, Pages: 3, Offset: 4 * page, lazyFlag: true}},
	}
	if diff := cmp.Diff(want, im.Tasks[0], cmp.AllowUnexported(Run{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestAdjacentEntriesMakeOneRun(t *testing.T) {
	im := openDump(t, newDump(entry(0x100000, 4, lazy), entry(0x104000, 4, lazy), entry(0x108000, 1, flagPresent), entry(0x10a000, 1, flagPresent)))
	want := []Run{
		{Addr: 0x100000, Pages: 8, lazyFlag: true},
		{Addr: 0x108000, Pages: 1, Offset: 8 * page},
		{Addr: 0x10a000, Pages: 1, Offset: 9 * page},
	}
	if diff := cmp.Diff(want, im.Tasks[0].Lazy, cmp.AllowUnexported(Run{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestImagesOfOlderCRIU(t *testing.T) {
	old := func(addr uint64, n uint32, flags *uint32, inParent *bool) *pagemap.PagemapEntry {
		return &pagemap.PagemapEntry{Vaddr: &addr, CompatNrPages: &n, Flags: flags, InParent: inParent}
	}
	parent := newDump(entry(0x100000, 20, lazy))
	child := newDump(
		old(0x100000, 4, proto.Uint32(lazy), nil),                    // up to 4.1
		old(0x104000, 4, nil, nil),                                   // without flags
		old(0x108000, 4, nil, proto.Bool(true)),                      // without flags, in the parent
		old(0x10c000, 4, proto.Uint32(flagParent), proto.Bool(true))) // both
	child.version = 1
	im := openChainOf(t, child, parent)
	want := []Run{
		{Addr: 0x100000, Pages: 4, lazyFlag: true},
		{Addr: 0x104000, Pages: 4, Offset: 4 * page},
		{Addr: 0x108000, Pages: 8, File: 1, Offset: 8 * page},
	}
	if diff := cmp.Diff(want, im.Tasks[0].Lazy, cmp.AllowUnexported(Run{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// openChainOf opens the first dump, whose parent is the second, and so on. Pages of the first are marked 0, of the
// second 1.
func openChainOf(t *testing.T, dumps ...*dump) *Images {
	t.Helper()
	dir := t.TempDir()
	for i, d := range dumps {
		sub := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		d.write(t, sub, uint64(i))
		if i+1 < len(dumps) {
			if err := os.Symlink(fmt.Sprintf("../%d", i+1), filepath.Join(sub, "parent")); err != nil {
				t.Fatal(err)
			}
		}
	}
	im, err := Open(filepath.Join(dir, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { im.Close() })
	return im
}

// Chains of dumps, against a model that knows of each page which dump has it.
func TestRandomChainsAreFlattened(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	const pages, depth = 60, 4
	for range 30 {
		var owner [pages]int // of each page: the dump that has it, or -1
		dumps := make([]*dump, depth)
		for level := depth - 1; level >= 0; level-- {
			var entries []*pagemap.PagemapEntry
			for p := uint64(0); p < pages; {
				n := min(1+rnd.Uint64N(8), pages-p)
				kind := rnd.IntN(4)
				for i := range n {
					have := level < depth-1 && owner[p+i] >= 0
					switch addr := 0x100000 + (p+i)*page; {
					case kind == 0 && have:
						entries = append(entries, entry(addr, 1, flagParent))
					case kind == 1:
						owner[p+i] = -1
					default:
						owner[p+i] = level
						entries = append(entries, entry(addr, 1, []uint32{lazy, flagPresent}[rnd.IntN(2)]))
					}
				}
				p += n
			}
			dumps[level] = newDump(entries...)
			dumps[level].shared = map[string][]*pagemap.PagemapEntry{"pagemap-shmem-5.img": entries}
		}
		im := openChainOf(t, dumps...)
		var want []string
		for p, o := range owner {
			if o >= 0 {
				want = append(want, fmt.Sprintf("%#x from dump %d", 0x100000+p*page, o))
			}
		}
		if diff := cmp.Diff(want, contents(t, im, im.Tasks[0].Lazy)); diff != "" {
			t.Fatalf("-want +got\n%s", diff)
		}
		skeleton := t.TempDir()
		if err := im.WriteSkeleton(skeleton); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, sharedContents(t, skeleton)); diff != "" {
			t.Fatalf("shared memory in the skeleton: -want +got\n%s", diff)
		}
	}
}

// contents reads the pages of runs and says what they hold.
func contents(t *testing.T, im *Images, runs []Run) []string {
	t.Helper()
	var out []string
	for _, r := range runs {
		for i := range r.Pages {
			var b [16]byte
			if _, err := im.chain.files[r.File].ReadAt(b[:], r.Offset+int64(i)*page); err != nil {
				t.Fatal(err)
			}
			if got := binary.LittleEndian.Uint64(b[:]); got != r.Addr+i*page {
				t.Fatalf("page of %#x is taken for that of %#x", got, r.Addr+i*page)
			}
			out = append(out, fmt.Sprintf("%#x from dump %d", r.Addr+i*page, binary.LittleEndian.Uint64(b[8:])))
		}
	}
	return out
}

// sharedContents says what the shared memory in a skeleton holds.
func sharedContents(t *testing.T, skeleton string) []string {
	t.Helper()
	c, err := openChain(skeleton)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	runs, err := c.runs("pagemap-shmem-5.img")
	if err != nil {
		t.Fatal(err)
	}
	return contents(t, &Images{chain: c}, runs)
}

func TestBadImages(t *testing.T) {
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, name))) }
	}
	for _, tc := range []struct {
		name   string
		dump   *dump
		damage func(t *testing.T, dir string)
		is     error
		says   string
	}{
		{name: "the folder is missing", damage: func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)) }, is: fs.ErrNotExist, says: "no such file"},
		{name: "the inventory is missing", damage: remove("inventory.img"), is: fs.ErrNotExist, says: "inventory.img"},
		{name: "the process tree is missing", damage: remove("pstree.img"), is: fs.ErrNotExist, says: "pstree.img"},
		{name: "a core image is missing", damage: remove("core-10.img"), is: fs.ErrNotExist, says: "core-10.img"},
		{name: "a memory map is missing", damage: remove("mm-10.img"), is: fs.ErrNotExist, says: "mm-10.img"},
		{name: "a pagemap is missing", damage: remove("pagemap-10.img"), is: fs.ErrNotExist, says: "pagemap-10.img"},
		{name: "a pages file is missing", damage: remove("pages-1.img"), is: fs.ErrNotExist, says: "pages-1.img"},
		{name: "an image may not be read", damage: func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, "mm-10.img")))
			must(t, os.Mkdir(filepath.Join(dir, "mm-10.img"), 0o700))
		}, says: "mm-10.img: is not a regular file"},
		{name: "a file of another kind has the name", damage: func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, "pagemap-10.img")))
			must(t, os.Link(filepath.Join(dir, "mm-10.img"), filepath.Join(dir, "pagemap-10.img")))
		}, says: "pagemap-10.img: has magic number 0x57492820"},
		{name: "the pages file is shorter than its pagemap says", damage: func(t *testing.T, dir string) {
			must(t, os.Truncate(filepath.Join(dir, "pages-1.img"), 9*page))
		}, says: "pages-1.img: has 36864 bytes, but pagemap-10.img lists pages up to byte 40960"},
		{name: "the pages file is longer than its pagemap says", damage: func(t *testing.T, dir string) {
			must(t, os.Truncate(filepath.Join(dir, "pages-1.img"), 11*page))
		}, says: "the pagemap is truncated"},
		{name: "an unknown version", dump: &dump{version: 3, tasks: newDump().tasks}, is: ErrUnsupported, says: "version 3"},
		{name: "an unknown field in the inventory", damage: func(t *testing.T, dir string) {
			msg := &inventory.InventoryEntry{ImgVersion: proto.Uint32(2)}
			writeImage(t, filepath.Join(dir, "inventory.img"), magicInventory, withUnknown(msg))
		}, is: ErrUnsupported, says: "inventory.img, entry 0"},
		{name: "an unknown field in a pagemap entry", dump: newDump(entry(0x100000, 1, lazy), withUnknown(entry(0x101000, 1, lazy))), is: ErrUnsupported, says: "pagemap-10.img, entry 2"},
		{name: "an unknown field in a mapping", dump: withVMAs(withUnknown(anon(0x100000, 100))), is: ErrUnsupported, says: "mm-10.img, entry 0: not supported: vma_entry"},
		{name: "an unknown flag", dump: newDump(entry(0x100000, 1, flagPresent|8)), is: ErrUnsupported, says: "flags 0xc"},
		{name: "no flag", dump: newDump(entry(0x100000, 1, 0)), is: ErrUnsupported, says: "flags 0x0"},
		{name: "contradicting flags", dump: newDump(entry(0x100000, 1, flagPresent|flagParent)), is: ErrUnsupported, says: "flags 0x5"},
		{name: "flags that contradict the older field", dump: newDump(&pagemap.PagemapEntry{
			Vaddr: proto.Uint64(0x100000), CompatNrPages: proto.Uint32(1), Flags: proto.Uint32(flagPresent), InParent: proto.Bool(true)}), says: "is in the parent"},
		{name: "an entry without pages", dump: newDump(entry(0x100000, 0, lazy)), says: "entry 1: holds no pages"},
		{name: "an address inside a page", dump: newDump(entry(0x100001, 1, lazy)), says: "not page aligned"},
		{name: "pages beyond the address space", dump: newDump(entry(1<<62, 1, flagLazy)), says: "leave the address space"},
		{name: "so many pages that their size overflows", dump: newDump(entry(0x100000, 1<<52, flagLazy)), says: "leave the address space"},
		{name: "overlapping entries", dump: newDump(entry(0x100000, 2, lazy), entry(0x101000, 1, lazy)), says: "entry 2: the pages at 0x101000 overlap"},
		{name: "entries out of order", dump: newDump(entry(0x105000, 2, lazy), entry(0x101000, 1, lazy)), says: "entry 2: the pages at 0x101000 overlap or precede"},
		{name: "a page where nothing is mapped", dump: newDump(entry(0x99000, 1, lazy)), says: "0x99000, where the task has no mapping"},
		{name: "a page behind the last mapping", dump: newDump(entry(0x163000, 2, lazy)), says: "0x164000, where the task has no mapping"},
		{name: "a page in a guarded range", dump: guarded(), says: "guarded range"},
		{name: "overlapping mappings", dump: withVMAs(anon(0x100000, 20), anon(0x110000, 90)), says: "overlap"},
		{name: "mappings out of order", dump: withVMAs(anon(0x110000, 90), anon(0x100000, 10)), says: "out of order"},
		{name: "an empty mapping", dump: withVMAs(anon(0x100000, 0)), says: "not a range of pages"},
		{name: "a mapping that ends before it starts", dump: withVMAs(anon(0x100000, ^uint64(0))), says: "not a range of pages"},
		{name: "a dump made with --lazy-pages", dump: newDump(entry(0x100000, 1, flagLazy)), is: ErrRemotePages, says: "page server"},
		{name: "pages in a parent that is not there", dump: newDump(entry(0x100000, 1, flagParent)), says: "link \"parent\" is missing"},
		{name: "pages in a parent that lacks them", dump: newDump(entry(0x100000, 3, flagParent)), damage: func(t *testing.T, dir string) {
			addParent(t, dir, newDump(entry(0x100000, 2, lazy)))
		}, says: "the page at 0x102000 is in the parent dump, but parent/pagemap-10.img lacks it"},
		{name: "a parent that lacks the task", dump: newDump(entry(0x100000, 3, flagParent)), damage: func(t *testing.T, dir string) {
			addParent(t, dir, &dump{version: 2, tasks: []dumpTask{{pid: 11, state: taskDead}}})
		}, is: fs.ErrNotExist, says: "parent/pagemap-10.img"},
		{name: "a parent made with --lazy-pages", dump: newDump(entry(0x100000, 3, flagParent)), damage: func(t *testing.T, dir string) {
			addParent(t, dir, newDump(entry(0x100000, 3, flagLazy)))
		}, is: ErrRemotePages, says: "parent/pagemap-10.img"},
		{name: "a dump that is its own parent", dump: newDump(entry(0x100000, 3, flagParent)), damage: func(t *testing.T, dir string) {
			must(t, os.Symlink(".", filepath.Join(dir, "parent")))
		}, says: "returns to itself"},
		{name: "a parent that is a file", damage: func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "parent"), nil, 0o600))
		}, says: "is not a folder"},
		{name: "a task twice", dump: &dump{version: 2, tasks: slices.Repeat(newDump().tasks, 2)}, says: "pstree.img, entry 1: pid 10 stands there twice"},
		{name: "a pid of 0", dump: &dump{version: 2, tasks: []dumpTask{{pid: 0, state: taskDead}}}, says: "pid 0"},
		{name: "a pid that is none", dump: &dump{version: 2, tasks: []dumpTask{{pid: 1 << 31, state: taskDead}}}, says: "pid 2147483648"},
		{name: "no task", dump: &dump{version: 2}, says: "lists no task"},
		{name: "an unknown state", dump: &dump{version: 2, tasks: []dumpTask{{pid: 10, state: 9}}}, is: ErrUnsupported, says: "task state 9"},
		{name: "a task that the tree lacks", damage: func(t *testing.T, dir string) {
			(&dumpTask{pid: 11, state: taskAlive, pagesID: 7}).write(t, dir, 0)
		}, says: "does not list task 11"},
		{name: "shared memory beyond its pages file", dump: &dump{version: 2, tasks: newDump().tasks, shared: map[string][]*pagemap.PagemapEntry{
			"pagemap-shmem-3.img": {entry(0, 4, flagPresent)}}}, damage: func(t *testing.T, dir string) {
			must(t, os.Truncate(filepath.Join(dir, "pages-101.img"), page))
		}, says: "pages-101.img: has 4096 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if tc.dump == nil {
				tc.dump = newDump(entry(0x100000, 10, lazy))
			}
			tc.dump.write(t, dir, 0)
			if tc.damage != nil {
				tc.damage(t, dir)
			}
			im, err := Open(dir)
			if err == nil {
				im.Close()
				t.Fatal("Open accepts it")
			}
			var ie *ImageError
			if !errors.Is(err, ErrImages) || !errors.As(err, &ie) || tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("error %v is of the wrong kind", err)
			}
			if !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error %q does not say %q", err, tc.says)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// withUnknown gives a message a field that its definition lacks, as a newer CRIU would.
func withUnknown[M proto.Message](m M) M {
	b := protowire.AppendTag(nil, 99, protowire.VarintType)
	m.ProtoReflect().SetUnknown(protowire.AppendVarint(b, 1))
	return m
}

func withVMAs(vmas ...*vma.VmaEntry) *dump {
	d := newDump()
	d.tasks[0].vmas = vmas
	return d
}

func guarded() *dump {
	d := newDump(entry(0x100000, 10, lazy))
	d.tasks[0].vmas = append(d.tasks[0].vmas, aVMA(0x105000, 1, 0, statusGuard))
	return d
}

func addParent(t *testing.T, dir string, d *dump) {
	t.Helper()
	parent := t.TempDir()
	d.write(t, parent, 1)
	must(t, os.Symlink(parent, filepath.Join(dir, "parent")))
}

// Whatever a truncated file leaves of a dump, it is refused, or it is a file that says nothing about memory.
func TestTruncatedImagesAreRefused(t *testing.T) {
	dir := copyTiny(t)
	im, err := Open(dir)
	must(t, err)
	want := describe(im)
	im.Close()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		whole, err := os.ReadFile(path)
		must(t, err)
		step := 1
		switch kind, _, _ := strings.Cut(e.Name(), "-"); kind {
		case "inventory.img", "pstree.img", "mm", "pagemap":
		case "pages":
			step = page / 2
		default: // read by CRIU rather than by us
			step = 61
		}
		for n := 0; n < len(whole); n += step {
			must(t, os.Truncate(path, 0))
			must(t, os.WriteFile(path, whole[:n], 0o600))
			im, err := Open(dir)
			if err != nil {
				if !errors.Is(err, ErrImages) {
					t.Errorf("%s cut to %d bytes: error %v is of the wrong kind", e.Name(), n, err)
				}
				continue
			}
			if got := describe(im); got != want {
				t.Errorf("%s cut to %d bytes is taken for a smaller dump\n%s", e.Name(), n, cmp.Diff(want, got))
			}
			im.Close()
		}
		must(t, os.WriteFile(path, whole, 0o600))
	}
}

// CRIU's daemon breaks on entries of 2 GiB and more. The pages are a hole in a sparse file.
func TestEntriesMayBeHuge(t *testing.T) {
	const pages = 3 << 30 / page
	dir := t.TempDir()
	d := newDump(entry(0x100000, 1, lazy))
	d.tasks[0].vmas = []*vma.VmaEntry{anon(0x100000, pages)}
	d.write(t, dir, 0)
	id := uint32(1)
	writeImage(t, filepath.Join(dir, "pagemap-10.img"), magicPagemap, &pagemap.PagemapHead{PagesId: &id}, entry(0x100000, pages, lazy))
	must(t, os.Truncate(filepath.Join(dir, "pages-1.img"), pages*page))
	im, err := Open(dir)
	must(t, err)
	defer im.Close()
	src, layouts, err := im.Source()
	must(t, err)
	defer src.Close()
	if got := layouts[10].Extents; len(got) != 1 || got[0].Pages != pages {
		t.Errorf("extents are %v", got)
	}
	if data, n, err := src.Load(pages-1, 5); err != nil || n != 1 || len(data) != page {
		t.Errorf("the last page cannot be had: %d pages, %v", n, err)
	}
	skeleton := t.TempDir()
	must(t, im.WriteSkeleton(skeleton))
	pm, err := readImage(filepath.Join(skeleton, "pagemap-10.img"), "pagemap", magicPagemap, parsePagemap)
	must(t, err)
	for _, e := range pm.entries {
		if e.pages > maxEntryPages {
			t.Fatalf("the skeleton has an entry of %d pages", e.pages)
		}
	}
}
