package criu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/mnt"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"thaw/restore"
)

// plan maps all that is mappable in the skeleton from the pages files of the images. It returns what is mapped, too.
func (f *freeze) plan(t *testing.T) (*FilePlan, map[int][]restore.Extent) {
	t.Helper()
	ranges, err := Mappable(f.skeleton)
	must(t, err)
	plan := &FilePlan{Mount: "/", Tasks: make(map[int][]FileMapping)}
	for _, file := range f.images.chain.files {
		st, err := file.Stat()
		must(t, err)
		plan.Files = append(plan.Files, MappedFile{Path: file.Name(), Size: st.Size()})
	}
	extents := make(map[int][]restore.Extent)
	for i := range f.images.Tasks {
		task := &f.images.Tasks[i]
		for _, r := range ranges[task.PID] {
			for _, run := range task.Lazy {
				from, to := max(r.Addr, run.Addr), min(r.end(), run.end())
				if from >= to {
					continue
				}
				part := PageRange{from, (to - from) / restore.PageSize}
				plan.Tasks[task.PID] = append(plan.Tasks[task.PID], FileMapping{PageRange: part, File: run.File, Offset: run.Offset + int64(from-run.Addr), Random: len(plan.Tasks[task.PID])%2 == 1})
				extents[task.PID] = append(extents[task.PID], restore.Extent{Addr: part.Addr, Pages: part.Pages})
			}
		}
	}
	return plan, extents
}

func TestTreesWithMappedMemoryComeBackByteForByte(t *testing.T) {
	for _, scenarios := range [][]string{
		{"plain"}, {"plain", "tree"}, {"moves"}, {"drops"}, {"huge"}, {"forks"}, {"threads"}, {"storm"}, {"locked"},
	} {
		t.Run(scenarios[len(scenarios)-1], func(t *testing.T) {
			f := newFreeze(t, scenarios...)
			must(t, f.images.WriteSkeleton(f.skeleton))
			plan, extents := f.plan(t)
			var mapped uint64
			for _, e := range extents {
				l := restore.Layout{Extents: e}
				mapped += l.Pages()
			}
			if mapped == 0 {
				t.Fatal("nothing in a Python process is fit for mapping")
			}
			dir := t.TempDir()
			must(t, MapFiles(f.skeleton, dir, plan))
			checkAdvice(t, dir, plan)
			src, layouts, err := f.images.SkeletonSource()
			must(t, err)
			for pid, e := range extents {
				l := layouts[pid]
				layouts[pid] = l.Without(e)
			}
			f.target.Go(t)
			th := f.serve(t, dir, src, layouts, restore.Options{})
			if served, ran := th.end(t); served != nil || ran != nil {
				t.Errorf("served: %v, ran: %v", served, ran)
			}
			f.target.Check(t, 1, "root")
		})
	}
}

// checkAdvice compares the advice of the mappings in the images with that of the plan.
func checkAdvice(t *testing.T, dir string, plan *FilePlan) {
	t.Helper()
	for pid, mappings := range plan.Tasks {
		name := fmt.Sprintf("mm-%d.img", pid)
		entry, err := readImage(filepath.Join(dir, name), name, magicMM, readMM)
		must(t, err)
		random := make(map[uint64]bool)
		for _, v := range entry.GetVmas() {
			random[v.GetStart()] = v.GetMadv()&(1<<madvRandom) != 0
		}
		for _, m := range mappings {
			if random[m.Addr] != m.Random {
				t.Errorf("task %d, mapping at %#x: random is %v, want %v", pid, m.Addr, random[m.Addr], m.Random)
			}
		}
	}
}

func TestPlansThatMakeNoSenseAreRefused(t *testing.T) {
	f := newFreeze(t, "plain")
	must(t, f.images.WriteSkeleton(f.skeleton))
	good, _ := f.plan(t)
	pid := f.images.Tasks[0].PID
	one := good.Tasks[pid][0]
	for name, tt := range map[string]struct {
		spoil func(skeleton string, plan *FilePlan)
		want  error
	}{
		"memory that is not mapped": {func(_ string, p *FilePlan) {
			p.Tasks[pid] = []FileMapping{{PageRange: PageRange{0x1000, 1}}}
		}, ErrImages},
		"across the end of a mapping": {func(_ string, p *FilePlan) {
			wide := one
			wide.Pages += 1 << 30
			p.Tasks[pid] = []FileMapping{wide}
		}, ErrImages},
		"mappings that overlap": {func(_ string, p *FilePlan) { p.Tasks[pid] = []FileMapping{one, one} }, ErrImages},
		"a task that is not there": {func(_ string, p *FilePlan) {
			p.Tasks = map[int][]FileMapping{4242424: {one}}
		}, ErrImages},
		"a mount that is not there": {func(skeleton string, p *FilePlan) {
			p.Mount = "/packs"
			writeMounts(t, skeleton, "/", "/proc")
		}, ErrCannotMap},
		"the root of another mount namespace": {func(skeleton string, _ *FilePlan) { writeMounts(t, skeleton, "/", "/proc") }, ErrCannotMap},
		"two mount namespaces": {func(skeleton string, p *FilePlan) {
			p.Mount = "/packs"
			writeMounts(t, skeleton, "/", "/packs")
			must(t, os.Rename(filepath.Join(skeleton, "mountpoints-7.img"), filepath.Join(skeleton, "mountpoints-8.img")))
			writeMounts(t, skeleton, "/", "/packs")
		}, ErrCannotMap},
		"a user namespace": {func(skeleton string, _ *FilePlan) {
			must(t, os.WriteFile(filepath.Join(skeleton, "userns-9.img"), nil, 0o600))
		}, ErrCannotMap},
		"a skeleton without files": {func(skeleton string, _ *FilePlan) { must(t, os.Remove(filepath.Join(skeleton, filesImage))) }, ErrImages},
	} {
		t.Run(name, func(t *testing.T) {
			skeleton := t.TempDir()
			must(t, os.CopyFS(skeleton, os.DirFS(f.skeleton)))
			plan := *good
			plan.Tasks = map[int][]FileMapping{pid: {one}}
			tt.spoil(skeleton, &plan)
			if err := MapFiles(skeleton, t.TempDir(), &plan); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}

// writeMounts says that the tasks have a mount namespace with such mount points.
func writeMounts(t *testing.T, dir string, points ...string) {
	t.Helper()
	file, err := os.Create(filepath.Join(dir, "mountpoints-7.img"))
	must(t, err)
	defer file.Close()
	iw := newImageWriter(file, magicMounts)
	for i, point := range points {
		n := proto.Uint32(uint32(i))
		text := proto.String("")
		iw.record(&mnt.MntEntry{Fstype: n, MntId: n, RootDev: n, ParentMntId: n, Flags: n, Root: text, Mountpoint: &point, Source: text, Options: text})
	}
	must(t, iw.flush())
}

func TestTheMountOfTheFilesIsFound(t *testing.T) {
	dir := t.TempDir()
	writeMounts(t, dir, "/", "/proc", "/run/packs/")
	entries, err := os.ReadDir(dir)
	must(t, err)
	m := fileMapper{from: dir, plan: &FilePlan{Mount: "/run/packs"}}
	id, err := m.findMount(entries)
	if err != nil || id == nil || *id != 2 {
		t.Errorf("mount %v, %v; want 2", id, err)
	}
}

func TestListsOfMappableMemoryThatMakeNoSenseAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"no list":           `garbage`,
		"another version":   `{"version":2,"tasks":[]}`,
		"no version":        `{"tasks":[]}`,
		"no page":           `{"version":1,"tasks":[{"pid":1,"ranges":[[4097,1]]}]}`,
		"an empty range":    `{"version":1,"tasks":[{"pid":1,"ranges":[[4096,0]]}]}`,
		"out of order":      `{"version":1,"tasks":[{"pid":1,"ranges":[[8192,1],[4096,1]]}]}`,
		"overlapping":       `{"version":1,"tasks":[{"pid":1,"ranges":[[4096,2],[8192,1]]}]}`,
		"out of all bounds": `{"version":1,"tasks":[{"pid":1,"ranges":[[4096,18446744073709551615]]}]}`,
		"a task twice":      `{"version":1,"tasks":[{"pid":1,"ranges":[]},{"pid":1,"ranges":[]}]}`,
		"no task":           `{"version":1,"tasks":[{"pid":0,"ranges":[]}]}`,
	} {
		if _, err := parseMappable([]byte(text)); !errors.Is(err, ErrImages) {
			t.Errorf("%s: error %v, want one that wraps ErrImages", name, err)
		}
	}
	got, err := parseMappable([]byte(`{"version":1,"tasks":[{"pid":1,"ranges":[[4096,2],[12288,1]]},{"pid":9,"ranges":[]}]}`))
	must(t, err)
	if diff := cmp.Diff(map[int][]PageRange{1: {{4096, 2}, {12288, 1}}, 9: {}}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestASkeletonWithoutTheListHasNothingToMap(t *testing.T) {
	if got, err := Mappable(t.TempDir()); got != nil || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}

func FuzzMappable(f *testing.F) {
	f.Add([]byte(`{"version":1,"tasks":[{"pid":1,"ranges":[[4096,2],[12288,1]]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		tasks, err := parseMappable(data)
		if (err == nil) == (tasks == nil) {
			t.Fatalf("neither a list nor an error, or both: %v, %v", tasks, err)
		}
		for pid, ranges := range tasks {
			var at uint64
			for _, r := range ranges {
				if pid <= 0 || r.Addr < at || r.Pages == 0 || r.end() <= r.Addr {
					t.Fatalf("task %d has %v", pid, ranges)
				}
				at = r.end()
			}
		}
	})
}
