//go:build linux

package uffd_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"thaw/internal/testenv"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

func TestProbeFindsWhatThisKernelMustHave(t *testing.T) {
	info := testenv.NeedUserfaultfd(t)
	if want := uffd.IoctlAPI | uffd.IoctlRegister | uffd.IoctlUnregister; !info.Ioctls.Has(want) {
		t.Errorf("ioctls are %v, want at least %v", info.Ioctls, want)
	}
	if want := uffd.IoctlWake | uffd.IoctlCopy | uffd.IoctlZeropage; !info.RangeIoctls.Has(want) {
		t.Errorf("ioctls on a range are %v, want at least %v", info.RangeIoctls, want)
	}

	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	release := unix.ByteSliceToString(name.Release[:])
	// Only features that no configuration of the kernel can take away.
	always := uffdtest.CRIUFeatures | uffd.FeatureSigbus | uffd.FeatureThreadID | uffd.FeatureExactAddress |
		uffd.FeatureMove | uffd.FeaturePoison
	for bit := range 64 {
		f := uffd.Features(1) << bit
		if !always.Has(f) {
			continue
		}
		// Older kernels may have it too: distributions take features back to them.
		if atLeast(t, release, f.Since()) && !info.Features.Has(f) {
			t.Errorf("Linux %s is reported to lack %v, which Linux %s has", release, f, f.Since())
		}
	}
	t.Logf("Linux %s has %v; ranges allow %v", release, info.Features, info.RangeIoctls)
}

// atLeast compares versions such as "6.8" and "6.18.44-foo".
func atLeast(t *testing.T, have, want string) bool {
	t.Helper()
	var h, w [2]int
	for version, v := range map[string]*[2]int{have: &h, want: &w} {
		if _, err := fmt.Sscanf(version, "%d.%d", &v[0], &v[1]); err != nil {
			t.Fatalf("version %q: %v", version, err)
		}
	}
	return h[0] > w[0] || h[0] == w[0] && h[1] >= w[1]
}

func TestOpenRefusesUnknownFeature(t *testing.T) {
	testenv.NeedUserfaultfd(t)
	_, err := uffd.Open(&uffd.Options{Features: 1<<60 | uffd.FeatureThreadID})
	if !errors.Is(err, uffd.ErrNotSupported) || !errors.Is(err, errors.ErrUnsupported) {
		t.Fatalf("got %v, want ErrNotSupported", err)
	}
	if strings.Contains(err.Error(), "thread_id") {
		t.Errorf("%q blames a feature that the kernel has", err)
	}
}

func TestOpenReportsItsFeatures(t *testing.T) {
	testenv.NeedUserfaultfd(t)
	fd, err := uffd.Open(&uffd.Options{Features: uffd.FeatureEventUnmap})
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	if got := fd.Features(); got != uffd.FeatureEventUnmap {
		t.Errorf("got %v", got)
	}
}

// TestOpenWithoutPtraceCapability gives the capability up in one thread, which ends with the test.
func TestOpenWithoutPtraceCapability(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedUserfaultfd(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := dropCapability(unix.CAP_SYS_PTRACE); err != nil {
			t.Error(err)
			return
		}
		_, err := uffd.Open(&uffd.Options{Features: uffd.FeatureEventFork})
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "CAP_SYS_PTRACE") {
			t.Errorf("opening for fork events: got %v, want a hint at CAP_SYS_PTRACE", err)
		}
		info, err := uffd.Probe()
		if err != nil {
			t.Errorf("probe: %v", err)
		}
		if !errors.Is(info.ForkErr, fs.ErrPermission) {
			t.Errorf("probe says of fork events: %v", info.ForkErr)
		}
		if info.DeviceErr == nil {
			fd, err := uffd.Open(nil)
			if err != nil {
				t.Errorf("opening by the device: %v", err)
				return
			}
			fd.Close()
		}
	}()
	<-done
}

func dropCapability(capability uint) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[capability/32].Effective &^= 1 << (capability % 32)
	return unix.Capset(&header, &data[0])
}

func TestFromFDRejectsWhatIsNoUserfaultfd(t *testing.T) {
	for _, tt := range []struct {
		name string
		open func() (int, error)
	}{
		{"the reading end of a pipe", func() (int, error) {
			var p [2]int
			err := unix.Pipe2(p[:], unix.O_CLOEXEC)
			unix.Close(p[1])
			return p[0], err
		}},
		{"an eventfd", func() (int, error) { return unix.Eventfd(0, unix.EFD_CLOEXEC) }},
		{"an epoll descriptor", func() (int, error) { return unix.EpollCreate1(unix.EPOLL_CLOEXEC) }},
		{"a socket", func() (int, error) { return unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) }},
		{"a file in memory", func() (int, error) { return unix.MemfdCreate("anon_inode:[userfaultfd]", unix.MFD_CLOEXEC) }},
		{"a file with a clever name", func() (int, error) {
			return unix.Open(t.TempDir()+"/anon_inode:[userfaultfd]", unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		}},
		{"the device", func() (int, error) { return unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fd, err := tt.open()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := uffd.FromFD(fd); !errors.Is(err, uffd.ErrNotUserfaultfd) {
				t.Errorf("got %v, want ErrNotUserfaultfd", err)
			}
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); !errors.Is(err, unix.EBADF) {
				t.Errorf("the descriptor is still open: %v", err)
			}
		})
	}
	for _, fd := range []int{-1, 1 << 20} {
		if _, err := uffd.FromFD(fd); !errors.Is(err, unix.EBADF) {
			t.Errorf("descriptor %d: got %v, want EBADF", fd, err)
		}
	}
}

func TestFromFDRejectsUserfaultfdWithoutNegotiation(t *testing.T) {
	target := uffdtest.Start(t)
	if _, err := uffd.FromFD(target.OpenUnnegotiated().Must()); !errors.Is(err, uffd.ErrNotNegotiated) {
		t.Errorf("got %v, want ErrNotNegotiated", err)
	}
}

func TestFromFDMakesDescriptorNonBlocking(t *testing.T) {
	target := uffdtest.Start(t)
	raw := target.OpenRaw(0).Must()
	if err := unix.SetNonblock(raw, false); err != nil {
		t.Fatal(err)
	}
	fd, err := uffd.FromFD(raw)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, fd)
	if n, err := fd.ReadMessages(make([]uffd.Message, 1)); n != 0 || err != nil {
		t.Errorf("reading an empty queue: %d messages, error %v", n, err)
	}
	flags, err := unix.FcntlInt(uintptr(raw), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags are %#x, error %v; want close-on-exec", flags, err)
	}
}

func TestRegisterExplainsRefusal(t *testing.T) {
	target, fd := startMissing(t, 1)
	second := open(t, target, 0)
	for _, tt := range []struct {
		name string
		fd   *uffd.FD
		r    uffd.Range
		mode uffd.Mode
		want error
	}{
		{"nothing is mapped", fd, pages(8, 1), uffd.ModeMissing, unix.EINVAL},
		{"the range is empty", fd, pages(0, 0), uffd.ModeMissing, unix.EINVAL},
		{"the range is not aligned", fd, uffd.Range{Start: page(0) + 1, End: page(1)}, uffd.ModeMissing, unix.EINVAL},
		{"no mode is given", fd, pages(0, 1), 0, unix.EINVAL},
		{"another userfaultfd holds the range", second, pages(0, 1), uffd.ModeMissing, unix.EBUSY},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := tt.fd.Register(tt.r, tt.mode); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	if err := fd.Unregister(uffd.Range{Start: page(0) + 1, End: page(1)}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("unregister of an unaligned range: got %v, want EINVAL", err)
	}
	if err := fd.Wake(pages(0, 0)); !errors.Is(err, unix.EINVAL) {
		t.Errorf("wake of an empty range: got %v, want EINVAL", err)
	}
}

func TestClosedFDDoesNothing(t *testing.T) {
	_, fd := startMissing(t, 1)
	for range 2 {
		if err := fd.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name   string
		result uffd.Result
	}{
		{"copy", fd.Copy(page(0), content(1), 0)},
		{"zeropage", fd.Zeropage(pages(0, 1), 0)},
		{"continue", fd.Continue(pages(0, 1), 0)},
		{"poison", fd.Poison(pages(0, 1), 0)},
		{"move", fd.Move(page(0), page(1), uffd.PageSize, 0)},
		{"write protect", fd.WriteProtect(pages(0, 1), true, 0)},
	} {
		if tt.result.Outcome != uffd.Closed || !errors.Is(tt.result.Err(), os.ErrClosed) {
			t.Errorf("%s: got %v, error %v; want closed", tt.name, tt.result.Outcome, tt.result.Err())
		}
	}
	_, readErr := fd.ReadMessages(make([]uffd.Message, 1))
	_, registerErr := fd.Register(pages(0, 1), uffd.ModeMissing)
	for name, err := range map[string]error{
		"read": readErr, "register": registerErr,
		"unregister": fd.Unregister(pages(0, 1)), "wake": fd.Wake(pages(0, 1)),
	} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: got %v, want ErrClosed", name, err)
		}
	}
}

func TestCloseWhileOthersUseTheDescriptor(t *testing.T) {
	target, fd := startMissing(t, 1)
	_ = target
	src := content(1)
	var wg sync.WaitGroup
	started := make(chan struct{}, 4)
	for range 4 {
		wg.Go(func() {
			buf := make([]uffd.Message, 4)
			for first := true; ; first = false {
				r := fd.Copy(page(0), src, 0)
				_, err := fd.ReadMessages(buf)
				if first {
					started <- struct{}{}
				}
				if r.Outcome == uffd.Closed || errors.Is(err, os.ErrClosed) {
					return
				}
				// A descriptor closed under the call would be another file's, or nobody's.
				if r.Outcome != uffd.Done && r.Outcome != uffd.Exists || err != nil {
					t.Errorf("copy: %v (%v); read: %v", r.Outcome, r.Errno, err)
					return
				}
			}
		})
	}
	for range 4 {
		<-started
	}
	var closers sync.WaitGroup
	for range 2 {
		closers.Go(func() {
			if err := fd.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	closers.Wait()
	wg.Wait()
}

func TestServedPathDoesNotAllocate(t *testing.T) {
	const runs = 100
	target, fd := startMissing(t, 4*(runs+2))
	src := content(1)
	buf := make([]uffd.Message, 8)
	var next uint64
	allocs := testing.AllocsPerRun(runs, func() {
		if n, err := fd.ReadMessages(buf); n != 0 || err != nil {
			t.Fatal(n, err)
		}
		expect(t, fd.Copy(page(next), src, 0), uffd.Done, uffd.PageSize)
		expect(t, fd.Copy(page(next), src, 0), uffd.Exists, 0)
		expect(t, fd.Zeropage(pages(next+1, 1), uffd.ZeropageDontWake), uffd.Done, uffd.PageSize)
		if err := fd.Wake(pages(next+1, 1)); err != nil {
			t.Fatal(err)
		}
		expect(t, fd.Poison(pages(next+2, 1), 0), uffd.Done, uffd.PageSize)
		next += 4
	})
	if allocs != 0 {
		t.Errorf("%v allocations per run", allocs)
	}
	if !target.Resident(pages(0, 1))[0] {
		t.Error("nothing was copied")
	}
}
