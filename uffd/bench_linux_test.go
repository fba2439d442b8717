//go:build linux

package uffd_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"thaw/internal/testenv"
	"thaw/uffd"
)

// BenchmarkCopy installs pages into memory of this process, which allows to drop them again with no round trip.
func BenchmarkCopy(b *testing.B) {
	testenv.NeedUserfaultfd(b)
	for _, size := range []int{1, 4, 16, 64, 256} {
		b.Run(fmt.Sprintf("%dKiB", size*uffd.PageSize>>10), func(b *testing.B) { benchmarkCopy(b, size) })
	}
}

func benchmarkCopy(b *testing.B, size int) {
	const total = 4096 // pages
	memory := mapOwn(b, total)
	fd, err := uffd.Open(nil)
	if err != nil {
		b.Fatal(err)
	}
	closeAtEnd(b, fd)
	register(b, fd, rangeOf(memory), uffd.ModeMissing)
	src := content(uint64(size))
	start := rangeOf(memory).Start
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	done := 0
	for b.Loop() {
		if done == total {
			b.StopTimer()
			if err := unix.Madvise(memory, unix.MADV_DONTNEED); err != nil {
				b.Fatal(err)
			}
			done = 0
			b.StartTimer()
		}
		if r := fd.Copy(start+uint64(done)*uffd.PageSize, src, 0); r.Outcome != uffd.Done {
			b.Fatal(r.Err())
		}
		done += size
	}
}

// BenchmarkDemandFault measures what a thread of the target waits for one missing page: the trap, our wake-up,
// the copy, its wake-up.
func BenchmarkDemandFault(b *testing.B) {
	const n = 2048
	var latencies []time.Duration
	for b.Loop() {
		latencies = append(latencies, touchServed(b, n)...)
	}
	slices.Sort(latencies)
	b.ReportMetric(float64(latencies[len(latencies)/2].Nanoseconds()), "p50-ns/fault")
	b.ReportMetric(float64(latencies[len(latencies)*99/100].Nanoseconds()), "p99-ns/fault")
	b.ReportMetric(0, "ns/op")
}

// touchServed starts a target, has it touch n missing pages, serves them, and returns how long each took.
func touchServed(b *testing.B, n uint64) []time.Duration {
	target, fd := startMissing(b, n)
	ctx, stop := context.WithCancel(b.Context())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, fd, content(1)) }()
	var latencies []time.Duration
	for _, access := range target.Touch(pages(0, n), 1, 7)[0].Must() {
		latencies = append(latencies, access.Latency)
	}
	stop()
	if err := <-served; err != nil {
		b.Fatal(err)
	}
	return latencies
}

// serve answers every fault with the same page.
func serve(ctx context.Context, fd *uffd.FD, page []byte) error {
	buf := make([]uffd.Message, 16)
	events := []unix.PollFd{{Fd: int32(fd.Fd()), Events: unix.POLLIN}}
	for ctx.Err() == nil {
		if _, err := unix.Poll(events, 10); err != nil && err != unix.EINTR {
			return err
		}
		n, err := fd.ReadMessages(buf)
		if err != nil {
			return err
		}
		for _, m := range buf[:n] {
			addr, _, _ := m.PageFault()
			if r := fd.Copy(addr, page, 0); r.Outcome != uffd.Done {
				return r.Err()
			}
		}
	}
	return nil
}
