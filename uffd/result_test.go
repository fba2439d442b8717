package uffd

import (
	"errors"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestResultOfIoctl(t *testing.T) {
	const want = 4 * PageSize
	for _, tt := range []struct {
		name  string
		errno syscall.Errno
		field int64
		want  Result
	}{
		{"everything was copied", 0, want, Result{Bytes: want}},
		{"a part was copied", syscall.EAGAIN, PageSize, Result{PageSize, Again, syscall.EAGAIN}},
		{"the kernel refuses and leaves the field alone", syscall.EAGAIN, 0, Result{0, Again, syscall.EAGAIN}},
		{"the kernel refuses and says so in the field", syscall.EAGAIN, -int64(syscall.EAGAIN), Result{0, Again, syscall.EAGAIN}},
		{"only the field tells of the refusal", 0, -int64(syscall.EAGAIN), Result{0, Again, syscall.EAGAIN}},
		{"only the field tells that a part was copied", 0, PageSize, Result{PageSize, Again, syscall.EAGAIN}},
		{"the page exists", syscall.EEXIST, -int64(syscall.EEXIST), Result{0, Exists, syscall.EEXIST}},
		{"no range is registered there", syscall.ENOENT, -int64(syscall.ENOENT), Result{0, NotRegistered, syscall.ENOENT}},
		{"the target is gone", syscall.ESRCH, 0, Result{0, Gone, syscall.ESRCH}},
		{"the target is gone on an old kernel", syscall.ENOSPC, -int64(syscall.ENOSPC), Result{0, Gone, syscall.ENOSPC}},
		{"the target may have no more memory", syscall.ENOMEM, -int64(syscall.ENOMEM), Result{0, NoMemory, syscall.ENOMEM}},
		{"the source cannot be read", syscall.EFAULT, -int64(syscall.EFAULT), Result{0, Unreadable, syscall.EFAULT}},
		{"the source of a move is pinned", syscall.EBUSY, -int64(syscall.EBUSY), Result{0, Busy, syscall.EBUSY}},
		{"the arguments are wrong", syscall.EINVAL, 0, Result{0, Invalid, syscall.EINVAL}},
		{"the descriptor is wrong", syscall.EBADF, 0, Result{0, Invalid, syscall.EBADF}},
		{"nothing at all is reported", 0, 0, Result{0, Invalid, syscall.EIO}},
		{"more was copied than asked for", 0, 2 * want, Result{0, Invalid, syscall.EIO}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := newResult(tt.errno, tt.field, want)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			if err := got.Err(); (err == nil) != (got.Outcome == Done) || got.Errno != 0 && !errors.Is(err, got.Errno) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func FuzzResult(f *testing.F) {
	f.Add(uint16(syscall.EAGAIN), int64(-11), uint64(PageSize))
	f.Add(uint16(0), int64(PageSize), uint64(PageSize))
	f.Fuzz(func(t *testing.T, errno uint16, field int64, want uint64) {
		r := newResult(syscall.Errno(errno), field, want)
		if r.Bytes > want {
			t.Errorf("%d bytes of %d", r.Bytes, want)
		}
		if (r.Outcome == Done) != (r.Bytes == want && r.Errno == 0) {
			t.Errorf("outcome %v after %d of %d bytes, %v", r.Outcome, r.Bytes, want, r.Errno)
		}
	})
}

func TestOutcomesHaveNames(t *testing.T) {
	seen := make(map[string]bool)
	for o := Done; o <= Invalid; o++ {
		if name := o.String(); name == "" || seen[name] {
			t.Errorf("outcome %d is called %q", o, name)
		} else {
			seen[name] = true
		}
	}
	if got := Outcome(200).String(); got != "outcome 200" {
		t.Errorf("an unknown outcome is called %q", got)
	}
}
