package daemon

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/pagestore"
	"thaw/restore"
)

func TestWhatIsNeededIsAskedForInPartsThatAscend(t *testing.T) {
	extents := []restore.Extent{{Image: 900, Pages: 10}, {Image: 100, Pages: 50}, {Image: 20000, Pages: partPages}, {Image: 7, Pages: 3}, {Image: 0, Pages: 5}}
	first := []pagestore.PageRun{{Image: 100, Pages: 50}, {Image: 900, Pages: 10}, {Image: 20000, Pages: partPages}}
	left := uint64(1 << 20)
	got := inParts(extents, &left)
	if diff := cmp.Diff(append(first, pagestore.PageRun{Image: 0, Pages: 5}, pagestore.PageRun{Image: 7, Pages: 3}), got); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}
	if want := uint64(1<<20 - partPages - 68); left != want {
		t.Errorf("%d pages are left, want %d", left, want)
	}
	left = 55
	if diff := cmp.Diff([]pagestore.PageRun{{Image: 100, Pages: 50}, {Image: 900, Pages: 5}}, inParts(extents, &left)); diff != "" || left != 0 {
		t.Errorf("%d pages are left; runs (-want +got):\n%s", left, diff)
	}
}
