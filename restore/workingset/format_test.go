package workingset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/three.ws instead of comparing it")

// example has learned from three recordings and a partial one.
func example(t testing.TB) *Set {
	digest := [32]byte{0xab, 31: 0xcd}
	s := NewSet(digest, 1000)
	for n, r := range []*Recording{
		{
			Image: []Touch{{Page: 3, Time: -1}, {Page: 4, Time: time.Millisecond, Write: true}, {Page: 900, Time: time.Minute, Phase: PhaseLater}},
			Files: []FileTouches{{"/usr/lib/libc.so.6", []Touch{{Page: 17}, {Page: 400, Phase: PhaseRequest}}}},
		},
		{
			Image:  []Touch{{Page: 3}, {Page: 5, Time: 3 * time.Millisecond, Phase: PhaseRequest}},
			Hidden: []Run{{Page: 4, Pages: 100}, {Page: 999, Pages: 1}},
		},
		{Image: []Touch{{Page: 4}}, Partial: true},
		{
			Image:  []Touch{{Page: 3, Phase: PhaseRequest}, {Page: 5, Phase: PhaseRequest}, {Page: 300, Phase: PhaseLater, Write: true}},
			Files:  []FileTouches{{"/usr/bin/program", []Touch{{Page: 0, Write: true}}}},
			Hidden: []Run{{Page: 50, Pages: 100}},
		},
	} {
		r.Digest, r.ImagePages = digest, 1000
		if err := s.Add(r); err != nil {
			t.Fatalf("recording %d: %v", n, err)
		}
	}
	return s
}

func mustEncode(t testing.TB, s *Set) []byte {
	t.Helper()
	data, err := s.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestGoldenFileIsWhatIsWritten(t *testing.T) {
	name := filepath.Join("testdata", "three.ws")
	data := mustEncode(t, example(t))
	if *rewrite {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(golden, data) {
		t.Error("the format has changed: it needs another version")
	}
	got, err := Decode(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(example(t), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := got.Match([32]byte{0xab, 31: 0xcd}, 1000); err != nil {
		t.Error(err)
	}
	for _, foreign := range []error{got.Match([32]byte{0xab}, 1000), got.Match(got.Digest, 999)} {
		if !errors.Is(foreign, ErrForeign) {
			t.Errorf("Match returns %v", foreign)
		}
	}
}

func TestSetsSurviveBeingWritten(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	s := NewSet([32]byte{}, 300)
	for n := range 80 {
		got, err := Read(bytes.NewReader(mustEncode(t, s)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(s, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("after %d recordings: (-want +got):\n%s", n, diff)
		}
		mustAdd(t, s, randomRecording(r, 300))
	}
}

func TestEncodeAppends(t *testing.T) {
	data, err := example(t).Encode([]byte("before"))
	if err != nil || string(data[:6]) != "before" || !bytes.Equal(data[6:], mustEncode(t, example(t))) {
		t.Errorf("Encode appends something else, %v", err)
	}
}

func TestEntriesTakeFewBytes(t *testing.T) {
	w := world{pages: 100000}
	for _, tt := range []struct{ recordings, bytes int }{{1, 4}, {20, 6}, {Depth, 8}} {
		s := NewSet([32]byte{}, w.pages)
		for range tt.recordings {
			mustAdd(t, s, w.recording(core(10000), nil))
		}
		if size := len(mustEncode(t, s)); size > tt.bytes*10000+200 {
			t.Errorf("10000 entries take %d bytes after %d recordings", size, tt.recordings)
		}
	}
}

// change returns the file with some of its bytes replaced, of another length perhaps, and size and checksum made right again.
func change(data []byte, off, n int, with ...byte) []byte {
	b := append(bytes.Clone(data[:off]), with...)
	b = append(b, data[off+n:]...)
	binary.LittleEndian.PutUint64(b[16:], uint64(len(b)))
	binary.LittleEndian.PutUint64(b[len(b)-8:], xxhash.Sum64(b[:len(b)-8]))
	return b
}

func TestWhatIsNoWorkingSetIsRefused(t *testing.T) {
	// One page of one file, so that each byte has a known place.
	s := NewSet([32]byte{}, 10)
	mustAdd(t, s, &Recording{
		ImagePages: 10, Image: []Touch{{Page: 2}, {Page: 5, Phase: PhaseLater}}, Hidden: []Run{{Page: 7, Pages: 2}},
		Files: []FileTouches{{"/f", []Touch{{}}}},
	})
	good := mustEncode(t, s)
	const (
		image   = headerSize // path length, entries
		first   = image + 2  // gap, head, known, mask
		second  = first + 4  // the same
		file    = second + 4 // path length, path, entries
		third   = file + 4   // the same
		hidden  = third + 4  // gap, pages, known
		end     = hidden + 3 // the checksum
		image10 = 56         // pages of the image
	)
	if len(good) != end+sumSize {
		t.Fatalf("the file has %d bytes, want %d", len(good), end+sumSize)
	}
	damaged := bytes.Clone(good)
	damaged[first] ^= 1
	longer := append(bytes.Clone(good), 0)
	for name, tt := range map[string]struct {
		data []byte
		want error
	}{
		"nothing":                             {nil, ErrCorrupt},
		"something else":                      {bytes.Repeat([]byte("x"), 200), ErrCorrupt},
		"a file that was cut off":             {good[:len(good)-1], ErrCorrupt},
		"a file with more behind it":          {longer, ErrCorrupt},
		"a damaged byte":                      {damaged, ErrCorrupt},
		"another version":                     {change(good, 8, 1, 2), ErrVersion},
		"another page size":                   {change(good, 13, 1, 0x20), ErrCorrupt},
		"a reserved field":                    {change(good, 87, 1, 1), ErrCorrupt},
		"an image that is too large":          {change(good, image10+7, 1, 1), ErrCorrupt},
		"a page behind the image":             {change(good, image10, 1, 5), ErrCorrupt},
		"hidden pages behind the image":       {change(good, image10, 1, 8), ErrCorrupt},
		"a history longer than it can be":     {change(good, 64, 1, 0), ErrCorrupt},
		"no objects":                          {change(good, 72, 1, 0), ErrCorrupt},
		"fewer objects":                       {change(good, 72, 1, 1), ErrCorrupt},
		"more objects":                        {change(good, 72, 1, 3), ErrCorrupt},
		"objects that do not fit":             {change(good, 74, 1, 1), ErrCorrupt},
		"more hidden ranges":                  {change(good, 76, 1, 2), ErrCorrupt},
		"hidden ranges that do not fit":       {change(good, 79, 1, 0x7f), ErrCorrupt},
		"no hidden range":                     {change(good, 76, 1, 0), ErrCorrupt},
		"an image with a name":                {change(good, image, 1, 1, '/'), ErrCorrupt},
		"a path that does not fit":            {change(good, file, 1, 0xff, 0x1f), ErrCorrupt},
		"a file without a name":               {change(good, file, 3, 0), ErrCorrupt},
		"entries that do not fit":             {change(good, image+1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01), ErrCorrupt},
		"a file without entries":              {change(good, file+3, 5, 0), ErrCorrupt},
		"a page that no file has":             {change(good, third, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x04), ErrCorrupt},
		"a number longer than needed":         {change(good, first, 1, 0x82, 0), ErrCorrupt},
		"a number without an end":             {change(good, hidden, 3, 0x80, 0x80, 0x80), ErrCorrupt},
		"a number longer than there are":      {change(good, first, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01), ErrCorrupt},
		"a page that was never touched":       {change(good, first+1, 3, 1, 1), ErrCorrupt},
		"a mask of nothing":                   {change(good, first+3, 1, 0), ErrCorrupt},
		"a mask beyond the history":           {change(good, first+3, 1, 2), ErrCorrupt},
		"a mask that is too large":            {change(good, first+3, 1, 0xff, 0xff, 0xff, 0xff, 0x7f), ErrCorrupt},
		"a recording in two phases":           {change(good, first+1, 3, 0x20|0x80, 1, 1, 1), ErrCorrupt},
		"no history":                          {change(good, first+2, 1, 0), ErrCorrupt},
		"a history longer than the format's":  {change(good, first+2, 1, 33), ErrCorrupt},
		"hidden pages that are none":          {change(good, hidden+1, 1, 0), ErrCorrupt},
		"hidden pages with an entry":          {change(good, hidden, 1, 5), ErrCorrupt},
		"hidden pages with all there is":      {change(good, hidden+2, 1, 1), ErrCorrupt},
		"hidden pages beyond all images":      {change(good, hidden, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x04), ErrCorrupt},
		"a byte behind the end":               {change(good, end, 0, 0), ErrCorrupt},
		"two hidden ranges that could be one": {change(change(good, end, 0, 0, 1, 0), 76, 1, 2), ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			if s, err := Decode(tt.data); !errors.Is(err, tt.want) || s != nil {
				t.Errorf("Decode returns %v, want %v", err, tt.want)
			}
		})
	}
}

func TestSetsThatAreNoneAreNotWritten(t *testing.T) {
	for name, change := range map[string]func(*Set){
		"without an image":              func(s *Set) { s.Objects = nil },
		"with entries out of order":     func(s *Set) { s.Objects[0].Entries[0].Page = 800 },
		"with objects out of order":     func(s *Set) { s.Objects[1], s.Objects[2] = s.Objects[2], s.Objects[1] },
		"with hidden pages that touch":  func(s *Set) { s.Hidden[1].Page = s.Hidden[0].Page },
		"with a time that is no bucket": func(s *Set) { s.Objects[0].Entries[0].Bucket = LastBucket + 1 },
	} {
		t.Run(name, func(t *testing.T) {
			s := example(t)
			change(s)
			if data, err := s.Encode(nil); err == nil || data != nil {
				t.Errorf("Encode returns %d bytes, %v", len(data), err)
			}
		})
	}
}

func TestReaderThatFailsIsTold(t *testing.T) {
	fails := errors.New("disk on fire")
	if _, err := Read(readerFunc(func([]byte) (int, error) { return 0, fails })); !errors.Is(err, fails) {
		t.Errorf("Read returns %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func FuzzDecode(f *testing.F) {
	f.Add(mustEncode(f, example(f)))
	f.Add(mustEncode(f, NewSet([32]byte{}, 0)))
	f.Fuzz(func(t *testing.T, data []byte) {
		// Or else next to nothing would get past the checksum.
		if len(data) >= headerSize+sumSize {
			data = bytes.Clone(data)
			copy(data, Magic)
			binary.LittleEndian.PutUint64(data[16:], uint64(len(data)))
			binary.LittleEndian.PutUint64(data[len(data)-8:], xxhash.Sum64(data[:len(data)-8]))
		}
		s, err := Decode(data)
		if (s == nil) != (err != nil) {
			t.Fatalf("Decode returns %v and %v", s, err)
		}
		if err != nil {
			return
		}
		if again := mustEncode(t, s); !bytes.Equal(again, data) {
			t.Error("it is written in other bytes than it was read from")
		}
		plan := Cut(s, nil)
		if n := Summarize(s, nil, 16).Image.Pages(); plan.Pages() > n {
			t.Errorf("the plan has %d pages, and the set %d", plan.Pages(), n)
		}
		merged := mustMerge(t, s, s)
		mustEncode(t, merged)
	})
}
