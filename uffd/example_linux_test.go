//go:build linux

package uffd_test

import (
	"errors"
	"fmt"
	"log"

	"golang.org/x/sys/unix"
	"thaw/uffd"
)

// A server adopts the descriptor that the target sent, and resolves each missing page with what page returns
// for its address.
func Example() {
	var received int // from the target, over a unix socket
	var page func(addr uint64) []byte

	fd, err := uffd.FromFD(received)
	if err != nil {
		log.Fatal(err)
	}
	defer fd.Close()
	messages := make([]uffd.Message, 64)
	events := []unix.PollFd{{Fd: int32(fd.Fd()), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(events, -1); err != nil && !errors.Is(err, unix.EINTR) {
			log.Fatal(err)
		}
		n, err := fd.ReadMessages(messages)
		if err != nil {
			log.Fatal(err)
		}
		for _, m := range messages[:n] {
			if m.Kind() != uffd.EventPagefault {
				continue // of features that this target did not negotiate
			}
			addr, _, _ := m.PageFault()
			switch r := fd.Copy(addr, page(addr), 0); r.Outcome {
			case uffd.Done:
			case uffd.Exists: // two threads have faulted on the page
			case uffd.Gone:
				return
			default:
				log.Fatal(r.Err())
			}
		}
	}
}

// Features explain which kernel has them.
func ExampleFeatures_Since() {
	want := uffd.FeatureEventFork | uffd.FeaturePoison
	fmt.Printf("%v: Linux %s\n", want, want.Since())
	// Output: event_fork|poison: Linux 6.6
}

// Probe says what the kernel offers to this process.
func ExampleProbe() {
	info, err := uffd.Probe()
	if err != nil {
		fmt.Println("no userfaultfd here:", err)
		return
	}
	if info.ForkErr != nil {
		fmt.Println("CRIU's lazy restore will not see forks:", info.ForkErr)
	}
	if !info.Features.Has(uffd.FeaturePoison) {
		fmt.Println("a page that is lost must kill its process")
	}
}
