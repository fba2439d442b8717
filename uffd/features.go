package uffd

import "fmt"

// Features are optional parts of the userfaultfd API, fixed for a descriptor when its API is negotiated.
type Features uint64

const (
	// FeaturePagefaultFlagWP offers write protection of anonymous memory (ModeWP). Since Linux 5.7.
	FeaturePagefaultFlagWP Features = 1 << iota
	// FeatureEventFork sends EventFork when the target forks. Needs CAP_SYS_PTRACE. Since Linux 4.11.
	FeatureEventFork
	// FeatureEventRemap sends EventRemap when the target calls mremap. Since Linux 4.11.
	FeatureEventRemap
	// FeatureEventRemove sends EventRemove on MADV_DONTNEED, MADV_FREE and MADV_REMOVE. Since Linux 4.11.
	FeatureEventRemove
	// FeatureMissingHugetlbfs offers ModeMissing for hugetlbfs. Since Linux 4.11.
	FeatureMissingHugetlbfs
	// FeatureMissingShmem offers ModeMissing for shared memory and tmpfs. Since Linux 4.11.
	FeatureMissingShmem
	// FeatureEventUnmap sends EventUnmap on munmap, and on mremap for what it unmaps. Since Linux 4.11.
	FeatureEventUnmap
	// FeatureSigbus raises SIGBUS in the target instead of sending a message. Since Linux 4.14.
	FeatureSigbus
	// FeatureThreadID names the faulting thread in page-fault messages. Since Linux 4.14.
	FeatureThreadID
	// FeatureMinorHugetlbfs offers ModeMinor for hugetlbfs. Since Linux 5.13.
	FeatureMinorHugetlbfs
	// FeatureMinorShmem offers ModeMinor for shared memory and tmpfs. Since Linux 5.14.
	FeatureMinorShmem
	// FeatureExactAddress keeps the low bits of the address in page-fault messages. Since Linux 5.18.
	FeatureExactAddress
	// FeatureWPHugetlbfsShmem offers ModeWP for hugetlbfs and shared memory. Since Linux 5.19.
	FeatureWPHugetlbfsShmem
	// FeatureWPUnpopulated lets WriteProtect protect anonymous pages without content. Since Linux 6.4.
	FeatureWPUnpopulated
	// FeaturePoison offers Poison. Since Linux 6.6.
	FeaturePoison
	// FeatureWPAsync resolves write-protect faults in the kernel, leaving a mark in pagemap. Since Linux 6.7.
	FeatureWPAsync
	// FeatureMove offers Move. Since Linux 6.8.
	FeatureMove
)

// features holds the name and the first kernel of each feature, by bit.
var features = []struct {
	name  string
	since kernelVersion
}{
	{"pagefault_flag_wp", kernelVersion{5, 7}},
	{"event_fork", kernelVersion{4, 11}},
	{"event_remap", kernelVersion{4, 11}},
	{"event_remove", kernelVersion{4, 11}},
	{"missing_hugetlbfs", kernelVersion{4, 11}},
	{"missing_shmem", kernelVersion{4, 11}},
	{"event_unmap", kernelVersion{4, 11}},
	{"sigbus", kernelVersion{4, 14}},
	{"thread_id", kernelVersion{4, 14}},
	{"minor_hugetlbfs", kernelVersion{5, 13}},
	{"minor_shmem", kernelVersion{5, 14}},
	{"exact_address", kernelVersion{5, 18}},
	{"wp_hugetlbfs_shmem", kernelVersion{5, 19}},
	{"wp_unpopulated", kernelVersion{6, 4}},
	{"poison", kernelVersion{6, 6}},
	{"wp_async", kernelVersion{6, 7}},
	{"move", kernelVersion{6, 8}},
}

var featureNames = func() []string {
	names := make([]string, len(features))
	for bit, f := range features {
		names[bit] = f.name
	}
	return names
}()

// Has reports whether all of want are in f.
func (f Features) Has(want Features) bool { return f&want == want }

// String returns the names of the features joined with "|", without their UFFD_FEATURE_ prefix.
func (f Features) String() string { return flagString(uint64(f), featureNames) }

// Since returns the version of Linux that first had all of f, as "6.8", and "unknown" if f holds a bit that
// this package does not know. Distributions move features to older kernels, so it explains a refusal but
// does not predict one.
func (f Features) Since() string {
	v := kernelVersion{4, 3}
	for bit, feature := range features {
		if f&(1<<bit) == 0 {
			continue
		}
		f &^= 1 << bit
		if v.less(feature.since) {
			v = feature.since
		}
	}
	if f != 0 {
		return "unknown"
	}
	return v.String()
}

type kernelVersion struct{ major, minor int }

func (v kernelVersion) less(w kernelVersion) bool {
	return v.major < w.major || v.major == w.major && v.minor < w.minor
}

func (v kernelVersion) String() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }
