package snapshot

import (
	"slices"
	"testing"

	"thaw/pagestore"
	"thaw/restore/workingset"
)

func TestWhatIsPackedAndWhatIsSent(t *testing.T) {
	// A block of which the set has all, and two pages of others.
	var plan workingset.Plan
	plan.Must.Replay = []workingset.Run{{Page: 700, Pages: 1}, {Page: 256, Pages: 256}, {Page: 3, Pages: 1}}
	scattered := []pagestore.PageRun{{Image: 700, Pages: 1}, {Image: 3, Pages: 1}}
	packed := worthPacking(&plan)
	if !slices.Equal(packed, scattered) {
		t.Errorf("packed are %v, want %v", packed, scattered)
	}
	all := []pagestore.PageRun{{Image: 700, Pages: 1}, {Image: 256, Pages: 256}, {Image: 3, Pages: 1}}
	if sent := worthSending(&plan, packed, 258*farShare); !slices.Equal(sent, all) {
		t.Errorf("sent are %v, want %v", sent, all)
	}
	if sent := worthSending(&plan, packed, 258*farShare-1); !slices.Equal(sent, scattered) {
		t.Errorf("of a smaller image %v are sent, want %v", sent, scattered)
	}
}
