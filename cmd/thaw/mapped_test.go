package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"thaw/checkpoint"
	"thaw/control"
	"thaw/internal/testenv"
)

// rememberer is a Python program with memory of all the kinds that are mapped: blocks of malloc's with mappings of their own, the
// brk heap, and objects of CPython's. Each line of its input is something to do with it; the answer is the digest of all of it.
const rememberer = `import ctypes, hashlib, mmap, os, random, sys
rng = random.Random(7)
blocks = [bytearray(rng.randbytes(n)) for n in (3 << 20, 700_000, 5 << 20, 1 << 20)]
middling = [rng.randbytes(60_000 + i) for i in range(200)]
small = {i: (str(rng.random()), [rng.random() for _ in range(5)]) for i in range(60_000)}
libc = ctypes.CDLL(None)
def digest():
    h = hashlib.sha256()
    for b in blocks: h.update(b)
    for b in middling: h.update(b)
    h.update(repr(small).encode())
    return h.hexdigest()
def work(line):
    global middling
    if line == "write":
        for b in blocks:
            for at in range(0, len(b), 10_007): b[at] ^= 0x5a
        for i in range(0, 60_000, 3): small[i] = ("new", [float(i)])
    elif line == "grow":                      # realloc, and with it mremap; beyond the end of any pack
        for b in blocks: b += b[:len(b) // 2] * 5
        blocks[0] += bytes(96 << 20)
    elif line == "shrink":
        for b in blocks: del b[max(len(b) // 3, 400_000):]
    elif line == "free":
        middling = middling[::2]
        del blocks[1]
        for i in range(0, 60_000, 2): small.pop(i, None)
        libc.malloc_trim(0)
    elif line == "zeros":                     # calloc where memory was given back
        blocks.append(bytearray(2 << 20))
        middling.extend(bytes(50_000) for _ in range(100))
    elif line == "fork":
        r, w = os.pipe()
        if os.fork() == 0:
            work("write")
            os.write(w, digest().encode())
            os._exit(0)
        os.wait()
        return os.read(r, 64).decode() + " " + digest()
    return digest()
for line in sys.stdin:
    print(line.strip(), work(line.strip()), flush=True)`

// blocksApart makes malloc give large blocks mappings of their own, always: it would learn not to.
const blocksApart = "MALLOC_MMAP_THRESHOLD_=500000"

// A remembering is a rememberer that runs somewhere.
type remembering struct {
	in  *os.File
	out *bufio.Reader
}

// do has the program do something and returns what it says then.
func (r *remembering) do(t *testing.T, what string) string {
	t.Helper()
	if _, err := fmt.Fprintln(r.in, what); err != nil {
		t.Fatal(err)
	}
	line, err := r.out.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, what+" ") {
		t.Fatalf("the program answers %q to %q: %v", line, what, err)
	}
	return line
}

// newModel runs the program without a container and without ever freezing it.
func newModel(t *testing.T) *remembering {
	t.Helper()
	inR, inW := pipe(t)
	outR, outW := pipe(t)
	// The Python of the containers, so that all that is printed is alike.
	cmd := exec.Command("/usr/sbin/chroot", testenv.Rootfs(t), "/usr/bin/python3", "-S", "-c", rememberer)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, os.Stderr
	cmd.Env = []string{blocksApart}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	inR.Close()
	outW.Close()
	t.Cleanup(func() {
		inW.Close() // the end of its input ends it
		cmd.Wait()
	})
	return &remembering{inW, bufio.NewReader(outR)}
}

// mapped makes containers that run a rememberer and see the packs of the store.
type mapped struct {
	*containers
	packs string // where the container sees them; empty: it does not
}

func (m *mapped) bundle(t *testing.T, id string) string {
	t.Helper()
	dir := filepath.Join(m.place.dir, "bundle-"+id)
	b := checkpoint.Bundle{Rootfs: m.rootf, Args: []string{"/usr/bin/python3", "-S", "-c", rememberer},
		Env: []string{blocksApart}, CgroupsPath: "/" + filepath.Base(m.place.dir) + "-" + id}
	if m.packs != "" {
		b.Binds = []checkpoint.Bind{{Source: filepath.Join(m.place.store, "namespaces", "default", "packs"), Target: m.packs}}
	}
	if err := b.Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// start runs the program in a container that was never frozen.
func (m *mapped) start(t *testing.T, id string) *remembering {
	t.Helper()
	inR, inW := pipe(t)
	outR, outW := pipe(t)
	_, err := m.tools.RunContainer(t.Context(), checkpoint.RunOptions{
		ID: id, Bundle: m.bundle(t, id), Work: filepath.Join(m.place.dir, "run-"+id), Stdio: checkpoint.Stdio{In: inR, Out: outW},
	})
	if err != nil {
		t.Fatal(err)
	}
	inR.Close()
	outW.Close()
	return &remembering{inW, bufio.NewReader(outR)}
}

// thaw restores a snapshot into a new container.
func (m *mapped) thaw(t *testing.T, s *server, snapshot, id string, more ...string) (*remembering, control.Session) {
	t.Helper()
	inR, inW := pipe(t)
	outR, outW := pipe(t)
	known := len(mustSessions(t, s))
	cmd := m.place.command("thaw", append([]string{"restore", snapshot, "--runc-root", m.root, "--bundle", m.bundle(t, id), "--id", id}, more...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		inW.Close()
		cmd.Wait()
	})
	inR.Close()
	outW.Close()
	r := &remembering{inW, bufio.NewReader(outR)}
	r.do(t, "look")
	sessions := mustSessions(t, s)
	if len(sessions) != known+1 {
		t.Fatalf("%d sessions, want %d", len(sessions), known+1)
	}
	return r, sessions[known]
}

// steps are what the programs do, in this order.
var steps = []string{"look", "write", "shrink", "grow", "fork", "shrink", "look", "free", "zeros", "write", "shrink", "grow", "fork"}

func TestMappedMemoryIsLikeMemory(t *testing.T) {
	p := newPlace(t)
	m := &mapped{newContainers(t, p), "/mnt"}
	s := p.serve(t)
	model := newModel(t)
	first := m.start(t, "one")
	if got, want := first.do(t, "look"), model.do(t, "look"); got != want {
		t.Fatalf("a program that was never frozen says %s, want %s", got, want)
	}
	p.must(t, nil, "snapshot", "create", "--container", "one", "--runc-root", m.root, "--name", "web")

	second, session := m.thaw(t, s, "web", "two")
	if pr := session.Progress; pr.PagesMapped < 20<<20/4096 || pr.PagesMapped < 9*pr.PagesTotal {
		t.Errorf("%d pages are mapped and %d copied, want at least 9 of 10 mapped", pr.PagesMapped, pr.PagesTotal)
	}
	copied, session := m.thaw(t, s, "web", "copied", "--copy")
	if pr := session.Progress; pr.PagesMapped != 0 {
		t.Errorf("%d pages are mapped with --copy", pr.PagesMapped)
	}
	half := len(steps) / 2
	for _, step := range steps[:half] {
		want := model.do(t, step)
		for name, r := range map[string]*remembering{"mapped": second, "copied": copied} {
			if got := r.do(t, step); got != want {
				t.Fatalf("%s, after %s: the program says %s, want %s", name, step, got, want)
			}
		}
	}

	// What is mapped is in packs of one namespace; in another the process would have lost it.
	other := p.thaw(t, "snapshot", "create", "--container", "two", "--runc-root", m.root, "--name", "other/again")
	if other.code == 0 || !strings.Contains(other.stderr, "freeze it into the namespace") {
		t.Errorf("create in another namespace: exit code %d: %s", other.code, other.stderr)
	}
	if got, want := second.do(t, "look"), copied.do(t, "look"); got != want {
		t.Errorf("after a freeze that was refused the program says %s, want %s", got, want)
	}

	// Frozen once more: what was mapped and what was written to it becomes memory like any other.
	var again created
	p.must(t, &again, "snapshot", "create", "--container", "two", "--runc-root", m.root, "--name", "again", "--parent", "web", "--json")
	if again.DuplicatePages < again.NewPages/4 {
		t.Errorf("the second snapshot has %d new pages and %d that the store had", again.NewPages, again.DuplicatePages)
	}
	_, session = m.thaw(t, s, "again", "three")
	if pr := session.Progress; pr.PagesMapped < 20<<20/4096 {
		t.Errorf("%d pages of the second snapshot are mapped", pr.PagesMapped)
	}
	fourth, _ := m.thaw(t, s, "again", "four", "--copy")

	// And again at once: nothing that was mapped may be lost to it.
	p.must(t, nil, "snapshot", "create", "--container", "three", "--runc-root", m.root, "--name", "third", "--parent", "again")
	before := session.Progress.PagesMapped
	third, session := m.thaw(t, s, "third", "five")
	if after := session.Progress.PagesMapped; after < before-before/20 {
		t.Errorf("%d pages of the third snapshot are mapped, and were %d of the second", after, before)
	}
	for _, step := range steps[half:] {
		want := model.do(t, step)
		for name, r := range map[string]*remembering{"mapped": third, "copied": fourth} {
			if got := r.do(t, step); got != want {
				t.Fatalf("frozen twice, %s, after %s: the program says %s, want %s", name, step, got, want)
			}
		}
	}
}

func TestContainersThatDoNotSeeThePacksGetTheirMemoryCopied(t *testing.T) {
	p := newPlace(t)
	m := &mapped{newContainers(t, p), ""}
	s := p.serve(t)
	m.start(t, "one").do(t, "look")
	p.must(t, nil, "snapshot", "create", "--container", "one", "--runc-root", m.root, "--name", "web")
	m.packs = "/mnt" // nothing was mounted there when it was frozen
	r, session := m.thaw(t, s, "web", "two")
	if got, want := r.do(t, "look"), newModel(t).do(t, "look"); got != want {
		t.Errorf("the program says %s, want %s", got, want)
	}
	if n := session.Progress.PagesMapped; n != 0 {
		t.Errorf("%d pages are mapped", n)
	}
}
