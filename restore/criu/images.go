package criu

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/inventory"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pstree"

	"thaw/restore"
)

// A Task is a process of the dumped tree.
type Task struct {
	PID    int  // image pid
	Zombie bool // it had exited; it has no memory

	// Regions are the mappings that a lazy restore registers with userfaultfd, in address order.
	Regions []restore.Region

	// Lazy are the pages with content that lie in Regions, Eager the others, in address order; no run crosses the
	// border of a mapping. What lies in a region and in neither list is zero.
	Lazy, Eager []Run
}

// Images is a checked folder of CRIU images. It is immutable but for Close, and safe for concurrent use.
type Images struct {
	// Tasks is the process tree in the order of the images, parents before their children.
	Tasks []Task

	dir      string
	chain    *chain
	backings backings
	memory   map[int]*memoryMap // by pid; of tasks that are no zombies
	shared   []segment
}

// A segment is a shared memory segment. It is never lazy.
type segment struct {
	name string // of its pagemap image
	runs []Run
}

// Open parses the images in dir, and those of the parent dumps they build on, and checks all that a restore's memory
// depends on. It opens the pages files but does not read them. An error wraps ErrImages and names the file.
//
// The caller closes the Images.
func Open(dir string) (*Images, error) {
	return open(dir, (*chain).runs, nil)
}

// OpenRemote is Open for images whose lazy pages come from a page server. Only the pages that `criu restore
// --lazy-pages` leaves out are listed, each as Remote, and no pages file is needed.
func OpenRemote(dir string) (*Images, error) {
	return open(dir, (*chain).remoteRuns, nil)
}

func open(dir string, runs func(*chain, string) ([]Run, error), find func(string) (Backing, error)) (*Images, error) {
	c, err := openChain(dir)
	if err != nil {
		return nil, fmt.Errorf("open images in %s: %w", dir, err)
	}
	im := &Images{dir: dir, chain: c, backings: backings{find: find}, memory: make(map[int]*memoryMap)}
	if err := im.load(runs); err != nil {
		im.Close()
		return nil, fmt.Errorf("open images in %s: %w", dir, err)
	}
	return im, nil
}

func (im *Images) load(runs func(*chain, string) ([]Run, error)) error {
	if _, err := readImage(filepath.Join(im.dir, "inventory.img"), "inventory.img", magicInventory, parseInventory); err != nil {
		return err
	}
	tree, err := readImage(filepath.Join(im.dir, "pstree.img"), "pstree.img", magicPstree, parsePstree)
	if err != nil {
		return err
	}
	if err := im.backings.load(im.dir); err != nil {
		return err
	}
	for _, pid := range tree.pids {
		t, err := im.loadTask(pid, runs)
		if err != nil {
			return err
		}
		im.Tasks = append(im.Tasks, t)
	}
	return im.loadRest(tree, runs)
}

// loadTask reads what the images say about one task.
func (im *Images) loadTask(pid int, runs func(*chain, string) ([]Run, error)) (Task, error) {
	t := Task{PID: pid}
	name := fmt.Sprintf("core-%d.img", pid)
	state, err := readImage(filepath.Join(im.dir, name), name, magicCore, parseCore)
	if err != nil {
		return t, err
	}
	if t.Zombie = state == taskDead || state == taskZombie; t.Zombie {
		return t, nil
	}
	name = fmt.Sprintf("mm-%d.img", pid)
	mem, err := readImage(filepath.Join(im.dir, name), name, magicMM, parseMM)
	if err != nil {
		return t, err
	}
	im.memory[pid] = mem
	name = fmt.Sprintf("pagemap-%d.img", pid)
	pages, err := runs(im.chain, name)
	if err != nil {
		return t, err
	}
	if pages, err = im.restoreAnonymous(mem, pages); err != nil {
		return t, err
	}
	t.Regions = mem.regions()
	t.Lazy, t.Eager, err = mem.classify(pages, name)
	return t, err
}

// loadRest reads the shared memory segments, and looks for tasks that the process tree does not name: pstree.img has
// no count, so a truncated one looks like a smaller tree.
func (im *Images) loadRest(tree processTree, runs func(*chain, string) ([]Run, error)) error {
	entries, err := os.ReadDir(im.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if id, ok := imageID(e.Name(), "core-"); ok && !tree.ids[id] {
			return badFile("pstree.img", "does not list task %s, which has an image %s: it is truncated, or of another dump", id, e.Name())
		}
		if _, ok := imageID(e.Name(), "pagemap-shmem-"); ok {
			pages, err := runs(im.chain, e.Name())
			if err != nil {
				return err
			}
			im.shared = append(im.shared, segment{e.Name(), pages})
		}
	}
	return nil
}

// imageID returns what stands between prefix and ".img".
func imageID(name, prefix string) (string, bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, ".img")
}

// Close closes the files of which the pages are.
func (im *Images) Close() error { return errors.Join(im.chain.close(), im.backings.close()) }

// parseInventory reads inventory.img and returns the version of the format.
func parseInventory(er *entryReader) (uint32, error) {
	var entry inventory.InventoryEntry
	if err := er.strict(&entry); errors.Is(err, io.EOF) {
		return 0, badFile(er.name, "holds no record: it is truncated")
	} else if err != nil {
		return 0, err
	}
	if v := entry.GetImgVersion(); v != 1 && v != 2 {
		return 0, unsupported(er.name, 0, "version %d of the image format", v)
	}
	return entry.GetImgVersion(), er.end()
}

// A processTree is what pstree.img lists.
type processTree struct {
	pids []int           // of the tasks, in the order of the image
	ids  map[string]bool // of tasks and threads, as in the names of core images
}

// parsePstree reads pstree.img. CRIU fills the threads of a zombie with arbitrary numbers, so they say nothing more
// than which core images there may be.
func parsePstree(er *entryReader) (processTree, error) {
	tree := processTree{ids: make(map[string]bool)}
	seen := make(map[uint32]bool)
	for {
		var entry pstree.PstreeEntry
		if err := er.strict(&entry); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return tree, err
		}
		pid := entry.GetPid()
		if pid == 0 || pid > math.MaxInt32 {
			return tree, badEntry(er.name, er.index, "pid %d", pid)
		}
		if seen[pid] {
			return tree, badEntry(er.name, er.index, "pid %d stands there twice", pid)
		}
		seen[pid] = true
		tree.pids = append(tree.pids, int(pid))
		for _, id := range append(entry.GetThreads(), pid) {
			tree.ids[strconv.FormatUint(uint64(id), 10)] = true
		}
	}
	if len(tree.pids) == 0 {
		return tree, badFile(er.name, "lists no task: it is truncated")
	}
	return tree, nil
}

// States of a task in its core image. They are part of CRIU's format.
const (
	taskAlive   = 1
	taskDead    = 2
	taskStopped = 3
	taskZombie  = 6
)

// parseCore reads core-PID.img and returns the state of the task.
//
// Fields that are not known are let pass, unlike elsewhere: this file holds registers, timers, signals and the like,
// it is CRIU that reads them, and of memory it says nothing.
func parseCore(er *entryReader) (uint32, error) {
	var entry core.CoreEntry
	if err := er.next(&entry); errors.Is(err, io.EOF) {
		return 0, badFile(er.name, "holds no record: it is truncated")
	} else if err != nil {
		return 0, err
	}
	if err := er.end(); err != nil {
		return 0, err
	}
	if m := entry.GetMtype(); m != core.CoreEntry_X86_64 {
		return 0, unsupported(er.name, 0, "machine %v", m)
	}
	if entry.Tc == nil {
		return 0, badEntry(er.name, 0, "says nothing about the task: it is the image of a thread")
	}
	switch state := entry.GetTc().GetTaskState(); state {
	case taskAlive, taskDead, taskStopped, taskZombie:
		return state, nil
	default:
		return 0, unsupported(er.name, 0, "task state %d", state)
	}
}

// layout returns what a session has to know about the task. imagePage gives the image page of a run's first page.
func (t *Task) layout(lazy []Run, imagePage func(r *Run) uint64) restore.Layout {
	l := restore.Layout{Regions: t.Regions}
	for i := range lazy {
		r := &lazy[i]
		l.Extents = append(l.Extents, restore.Extent{Addr: r.Addr, Pages: r.Pages, Image: imagePage(r)})
	}
	return l
}
