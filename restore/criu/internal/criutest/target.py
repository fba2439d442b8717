"""A process tree to be frozen and thawed.

It fills memory, tells the digest of what it wrote, and waits for the file "go" (argv[2]). Then every process of the
tree checks its memory, and changes it in the ways that a lazy-pages server has to follow. Each process appends one
line of JSON to stdout.

argv: the fifo to report the digest on, the file to wait for, and the names of the scenarios to run.
"""

import ctypes
import hashlib
import json
import os
import random
import sys
import threading
import time

PAGE = 4096
PROT_RW, PRIVATE_ANON, NORESERVE = 3, 0x22, 0x4000
MAYMOVE, FIXED, DONTUNMAP = 1, 2, 4
DONTNEED, DONTFORK, WIPEONFORK, KEEPONFORK = 4, 10, 18, 19

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

errors = []


def check(ok, what):
    if not ok:
        errors.append(what)


def call(result, name):
    if result in (-1, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), name)
    return result


def pages(n, seed):
    return random.Random(seed).randbytes(n * PAGE)


class Area:
    """Anonymous memory and what it has to contain, one entry per page; None is zero."""

    def __init__(self, npages, flags=PRIVATE_ANON):
        self.npages = npages
        self.addr = call(libc.mmap(None, npages * PAGE, PROT_RW, flags, -1, 0), "mmap")
        self.want = {}

    def at(self, page):
        return self.addr + page * PAGE

    def fill(self, start, n, seed):
        data = pages(n, seed)
        ctypes.memmove(self.at(start), data, len(data))
        for i in range(n):
            self.want[start + i] = hashlib.sha256(data[i * PAGE : (i + 1) * PAGE]).hexdigest()
        return self

    def advise(self, start, n, advice):
        call(libc.madvise(self.at(start), n * PAGE, advice), "madvise")
        if advice == DONTNEED:
            self.forget(start, n)

    def forget(self, start, n):
        if n > len(self.want):
            self.want = {p: h for p, h in self.want.items() if not start <= p < start + n}
        else:
            for p in range(start, start + n):
                self.want.pop(p, None)

    def moved(self, npages, flags, to=None):
        self.addr = call(libc.mremap(self.addr, self.npages * PAGE, npages * PAGE, flags, to), "mremap")
        self.npages = npages

    def verify(self, what, some=None):
        zero = bytes(PAGE)
        order = list(some if some is not None else range(self.npages))
        random.Random(7).shuffle(order)
        for p in order:
            got = ctypes.string_at(self.at(p), PAGE)
            want = self.want.get(p)
            if want is None and got != zero:
                check(False, f"{what}: page {p} of {self.npages} is not zero")
                return
            if want is not None and hashlib.sha256(got).hexdigest() != want:
                check(False, f"{what}: page {p} of {self.npages} differs, zero: {got == zero}")
                return


def digest(areas):
    h = hashlib.sha256()
    for a in areas:
        for p in range(a.npages):
            h.update(ctypes.string_at(a.at(p), PAGE))
    return h.hexdigest()


def in_child(what, body):
    pid = os.fork()
    if pid == 0:
        errors.clear()
        try:
            body()
        except BaseException as e:
            errors.append(repr(e))
        if errors:
            report(what, [])
        os._exit(1 if errors else 0)
    check(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, what)


def report(role, areas):
    line = {"role": role, "pid": os.getpid(), "digest": digest(areas) if areas else "", "errors": errors}
    os.write(1, (json.dumps(line) + "\n").encode())


# Scenarios: what happens before the freeze. Each returns the areas that the digest is of, which have to survive, and
# what happens after the thaw.


def plain():
    a, b = Area(2048).fill(0, 2048, 1), Area(1500)
    for i in range(0, 1500, 3):
        b.fill(i, 1, 100 + i)
    untouched = Area(3000)
    heap = [pages(3, i) for i in range(200)]
    want = hashlib.sha256(b"".join(heap)).hexdigest()

    def after():
        a.verify("filled")
        b.verify("sparse")
        untouched.verify("untouched")
        check(hashlib.sha256(b"".join(heap)).hexdigest() == want, "heap")

    return [a, b], after


def moves():
    grow = Area(600).fill(0, 600, 2)
    shrink = Area(600).fill(0, 600, 3)
    fixed, hole = Area(400).fill(0, 400, 4), Area(1000).fill(0, 1000, 5)
    keep = Area(300).fill(0, 300, 6)
    one, two = Area(256).fill(0, 256, 7), Area(256).fill(0, 256, 8)

    def after():
        grow.moved(2000, MAYMOVE)
        grow.verify("grown")
        shrink.moved(100, MAYMOVE)
        shrink.verify("shrunk")
        fixed.moved(400, MAYMOVE | FIXED, hole.at(300))
        fixed.verify("moved onto other memory")
        hole.verify("around what was moved there", [*range(300), *range(700, 1000)])
        old = keep.addr
        keep.moved(300, MAYMOVE | FIXED | DONTUNMAP, Area(300).addr)
        keep.verify("moved, old range kept")
        check(ctypes.string_at(old, 300 * PAGE) == bytes(300 * PAGE), "old range is not zero")
        spare = Area(256)
        a, b = one.addr, two.addr
        one.moved(256, MAYMOVE | FIXED, spare.addr)
        two.moved(256, MAYMOVE | FIXED, a)
        one.moved(256, MAYMOVE | FIXED, b)
        one.verify("first of two swapped")
        two.verify("second of two swapped")

    return [], after


def drops():
    a, b = Area(2000).fill(0, 2000, 9), Area(500).fill(0, 500, 10)

    def after():
        rnd = random.Random(11)
        for _ in range(200):
            start = rnd.randrange(1990)
            a.advise(start, rnd.randrange(1, 10), DONTNEED)
        a.verify("dropped here and there")
        a.fill(5, 3, 12).verify("written after the drop")
        call(libc.munmap(b.at(100), 300 * PAGE), "munmap")
        b.verify("around the hole", [*range(100), *range(400, 500)])

    return [], after


def huge():
    # CRIU's daemon takes lengths as int: ranges of 2 GiB and more were not dropped.
    n = (5 << 30) // PAGE
    kept, gone, unmapped = (Area(n, PRIVATE_ANON | NORESERVE) for _ in range(3))
    for a in (kept, gone, unmapped):
        for p in (0, 1, n // 2, n - 1):
            a.fill(p, 1, p)

    def after():
        some = [0, 1, 2, n // 4, n // 2, n - 2, n - 1]
        kept.verify("huge and sparse", some)
        gone.advise(0, n, DONTNEED)
        gone.verify("huge and dropped", some)
        call(libc.munmap(unmapped.addr, n * PAGE), "munmap")
        again = call(libc.mmap(unmapped.addr, n * PAGE, PROT_RW, PRIVATE_ANON | NORESERVE | 0x100000, -1, 0), "mmap")
        check(again == unmapped.addr, "address taken")
        unmapped.forget(0, n)
        unmapped.verify("huge, unmapped and mapped anew", some)

    return [], after


def forks():
    a, wiped, kept = Area(1200).fill(0, 1200, 13), Area(200).fill(0, 200, 14), Area(200).fill(0, 200, 15)
    wiped.advise(0, 200, WIPEONFORK)
    kept.advise(0, 200, DONTFORK)

    def child():
        mine = Area.__new__(Area)
        mine.addr, mine.npages, mine.want = wiped.addr, 200, {}
        mine.verify("wiped in the child")
        a.verify("the child's copy")
        in_child("grandchild", lambda: a.verify("the grandchild's copy"))

    def after():
        for i in range(5):
            a.advise(i * 100, 7, DONTNEED)
            in_child("child", child)
        kids = [os.fork() for _ in range(1)]
        if kids[0] == 0:
            os.execv("/bin/true", ["true"])
        os.waitpid(kids[0], 0)
        a.verify("the parent's after forks")
        wiped.verify("wiped, in the parent")
        kept.verify("not inherited, in the parent")

    return [], after


def wipes():
    # Advice about forks that is given and taken back after the restore, of which userfaultfd tells nothing.
    a, late, taken = Area(300).fill(0, 300, 24), Area(200).fill(0, 200, 25), Area(200).fill(0, 200, 26)
    taken.advise(0, 200, WIPEONFORK)

    def child():
        mine = Area.__new__(Area)
        mine.addr, mine.npages, mine.want = late.addr + 50 * PAGE, 100, {}
        mine.verify("wiped in the child since lately")
        late.verify("not wiped in the child", [*range(50), *range(150, 200)])
        taken.verify("no longer wiped in the child")
        a.verify("the child's copy")

    def after():
        late.advise(50, 100, WIPEONFORK)
        taken.advise(0, 200, KEEPONFORK)
        in_child("child", child)
        late.verify("wiped in children, in the parent")
        taken.verify("no longer wiped in children, in the parent")

    return [], after


def threads():
    a = Area(4000).fill(0, 4000, 16)
    gate = threading.Event()

    def body(i):
        gate.wait()
        a.verify(f"thread {i}")

    ts = [threading.Thread(target=body, args=(i,)) for i in range(6)]
    for t in ts:
        t.start()

    def after():
        gate.set()
        for t in ts:
            t.join()

    return [a], after


def storm():
    # Faults on empty and on full pages while the address space changes all the time: each change makes the kernel
    # refuse pages for a moment, and CRIU's daemon forgets the faults on empty pages that hit one.
    full, empty, churn = Area(1500).fill(0, 1500, 21), Area(3000), Area(400).fill(0, 400, 22)
    gate = threading.Event()

    def touch(part):
        gate.wait()
        full.verify("in the storm, full", range(part, 1500, 3))
        empty.verify("in the storm, empty", range(part, 3000, 3))

    def change():
        gate.wait()
        for i in range(200):
            churn.advise(i, 2, DONTNEED)
            if i % 20 == 0:
                in_child("child in the storm", lambda: full.verify("the child's copy", range(0, 1500, 100)))
            if i % 10 == 0:
                churn.moved(400, MAYMOVE | FIXED, Area(400).addr)
        churn.verify("in the storm, changed")

    ts = [threading.Thread(target=touch, args=(i,)) for i in range(3)] + [threading.Thread(target=change)]
    for t in ts:
        t.start()

    def after():
        gate.set()
        for t in ts:
            t.join()

    return [], after


def offspring():
    # A child that outlives the server: it checks its memory when the file "go.bye" is there.
    a = Area(1500).fill(0, 1500, 23)

    def child():
        while not os.path.exists(sys.argv[2] + ".bye"):
            time.sleep(0.01)
        a.verify("the child's copy, once the server is gone")

    return [], lambda: in_child("long-lived child", child)


def locked():
    # Some kinds of memory are never lazy: locked pages, guarded ranges, shared memory.
    a, l, g = Area(300).fill(0, 300, 17), Area(64).fill(0, 64, 18), Area(96).fill(0, 96, 19)
    call(libc.mlock(l.addr, 64 * PAGE), "mlock")
    guarded = libc.madvise(g.at(32), 32 * PAGE, 102) == 0
    if guarded:
        g.forget(32, 32)
    s = Area(128, 0x21).fill(0, 50, 20)
    some = [*range(32), *range(64, 96)] if guarded else range(96)

    def after():
        a.verify("beside locked memory")
        l.verify("locked")
        g.verify("around the guarded range", some)
        s.verify("shared")

    return [], after


def main():
    fifo, go, names = sys.argv[1], sys.argv[2], sys.argv[3:]
    role = "root"
    if "tree" in names:
        names.remove("tree")
        if os.fork() == 0:
            os._exit(3)  # stays a zombie
        if os.fork() == 0:
            role, fifo = "child", None
            names = ["plain", "forks"]
            if os.fork() == 0:
                role, names = "grandchild", ["plain"]
    made = [globals()[n]() for n in names]
    areas = [a for some, _ in made for a in some]
    if fifo:
        # The children fill their memory meanwhile; a freeze in the middle of that is as good as any.
        with open(fifo, "w") as f:
            f.write(digest(areas))
    while not os.path.exists(go):
        time.sleep(0.01)
    try:
        for _, after in made:
            after()
    except BaseException as e:
        errors.append(repr(e))
    if role == "root" and "tree" in sys.argv:
        status = {os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1]) for _ in range(2)}
        check(status == {0, 3}, f"the children's exit codes are {status}")
    if role == "child":
        os.waitpid(-1, 0)
    report(role, areas)
    os._exit(1 if errors else 0)


main()
