package uffd

import "testing"

func TestFlagsAreReadable(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{Features(0).String(), "none"},
		{(FeatureEventFork | FeatureMove).String(), "event_fork|move"},
		{(FeatureEventFork | 1<<40).String(), "event_fork|0x10000000000"},
		{Features(1 << 40).String(), "0x10000000000"},
		{(ModeMissing | ModeMinor).String(), "missing|minor"},
		{(IoctlCopy | IoctlAPI).String(), "copy|api"},
		{Range{0x1000, 0x2000}.String(), "1000-2000"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

func TestFeaturesNameTheirKernel(t *testing.T) {
	for _, tt := range []struct {
		f    Features
		want string
	}{
		{0, "4.3"},
		{FeatureEventRemap, "4.11"},
		{FeatureEventRemap | FeatureThreadID, "4.14"},
		{FeatureThreadID | FeatureMinorShmem, "5.14"},
		{FeatureMove | FeatureEventFork, "6.8"},
		{FeatureMove | 1<<40, "unknown"},
	} {
		if got := tt.f.Since(); got != tt.want {
			t.Errorf("%v: got %q, want %q", tt.f, got, tt.want)
		}
	}
	if FeatureMove != 1<<(len(features)-1) {
		t.Errorf("%d features have names, the last is not %v", len(features), FeatureMove)
	}
}

func TestRangeArithmetic(t *testing.T) {
	for _, tt := range []struct {
		name   string
		r      Range
		length uint64
		pages  uint64
	}{
		{"empty", Range{PageSize, PageSize}, 0, 0},
		{"inverted", Range{2 * PageSize, PageSize}, 0, 0},
		{"two pages and a half", Range{0, 2*PageSize + 2048}, 2*PageSize + 2048, 2},
		{"everything", Range{0, 1<<64 - 1}, 1<<64 - 1, 1<<52 - 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.r.Len(); got != tt.length {
				t.Errorf("length %#x, want %#x", got, tt.length)
			}
			if got := tt.r.Pages(); got != tt.pages {
				t.Errorf("%d pages, want %d", got, tt.pages)
			}
			if tt.r.Contains(tt.r.End) {
				t.Error("the end is inside")
			}
			if tt.length > 0 && !tt.r.Contains(tt.r.Start) {
				t.Error("the start is outside")
			}
		})
	}
}
