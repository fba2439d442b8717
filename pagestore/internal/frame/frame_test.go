package frame_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/cespare/xxhash/v2"

	"thaw/internal/testenv"
	"thaw/pagestore/internal/frame"
	"thaw/pagestore/internal/pack"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

func TestMain(m *testing.M) { testenv.Main(m) }

// The golden objects have the same 33 pages, that is two frames: once compressed where it saves enough, once raw.
const (
	goldenZstd = "testdata/33-pages.zstd.frames"
	goldenRaw  = "testdata/33-pages.raw.frames"
)

// buffer is an io.WriterAt in memory.
type buffer struct{ b []byte }

func (m *buffer) WriteAt(p []byte, off int64) (int, error) {
	if grow := int(off) + len(p) - len(m.b); grow > 0 {
		m.b = append(m.b, make([]byte, grow)...)
	}
	return copy(m.b[off:], p), nil
}

// testPages returns pages of which the first 32 compress well and those behind them do not.
func testPages(n int) []byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	var pages []byte
	for i := range n {
		page := bytes.Repeat([]byte{byte(i + 1)}, pack.PageSize)
		if i >= 32 {
			for j := range page {
				page[j] = byte(rnd.Uint32())
			}
		}
		pages = append(pages, page...)
	}
	return pages
}

func testID() pack.Digest { return pack.Digest{1, 2, 3} }

// write makes an object of pages.
func write(t testing.TB, kind frame.Kind, pages []byte) ([]byte, *frame.Index) {
	t.Helper()
	var out buffer
	w, err := frame.NewWriter(&out, kind, testID(), uint32(len(pages)/pack.PageSize))
	if err != nil {
		t.Fatal(err)
	}
	for len(pages) > 0 {
		n := min(kind.FramePages()*pack.PageSize, len(pages))
		if err := w.Add(pages[:n]); err != nil {
			t.Fatal(err)
		}
		pages = pages[n:]
	}
	x, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return out.b, x
}

// raw makes the object in the raw layout.
func raw(t testing.TB, kind frame.Kind, pages []byte) ([]byte, *frame.Index) {
	t.Helper()
	x, err := frame.Raw(kind, testID(), uint32(len(pages)/pack.PageSize), frame.Nodes(kind, frame.Digests(nil, pages)))
	if err != nil {
		t.Fatal(err)
	}
	return append(x.Head(), pages...), x
}

// read returns the pages of an object.
func read(b []byte, root pack.Digest) ([]byte, *frame.Index, error) {
	if len(b) < frame.HeaderSize {
		return nil, nil, io.ErrUnexpectedEOF
	}
	h, err := frame.ParseHeader(b[:frame.HeaderSize])
	if err != nil {
		return nil, nil, err
	}
	if int64(len(b)) < h.HeadSize() {
		return nil, nil, io.ErrUnexpectedEOF
	}
	x, err := frame.ParseIndex(h, b[frame.HeaderSize:h.HeadSize()], root)
	if err != nil {
		return nil, nil, err
	}
	if int64(len(b)) != x.Size() {
		return nil, nil, io.ErrUnexpectedEOF
	}
	var pages []byte
	for i := range x.Frames() {
		content, err := x.Decode(make([]byte, x.RawSize(i)), b[x.Offset(i):][:x.Length(i)], i)
		if err != nil {
			return nil, nil, err
		}
		if err := x.Verify(i, content); err != nil {
			return nil, nil, err
		}
		pages = append(pages, content...)
	}
	return pages, x, nil
}

func TestGoldenObjects(t *testing.T) {
	pages := testPages(33)
	zstd, _ := write(t, frame.Pack, pages)
	plain, _ := raw(t, frame.Pack, pages)
	const root = "9d3800ef03195c94214b7d63a992179a48f383c3343e09d9c101135c70f98f32"
	for name, b := range map[string][]byte{goldenZstd: zstd, goldenRaw: plain} {
		if *rewrite {
			if err := os.WriteFile(name, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		golden, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := pack.ParseID(root)
		if err != nil {
			t.Fatal(err)
		}
		got, x, err := read(golden, want)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !bytes.Equal(got, pages) || x.Kind != frame.Pack || x.ID != testID() {
			t.Errorf("%s: it has other pages, or another name, than it was made of", name)
		}
	}
	// How well zstd compresses may change, the raw layout may not: peers compute it.
	if golden, err := os.ReadFile(goldenRaw); err != nil || !bytes.Equal(golden, plain) {
		t.Errorf("the raw layout has changed (%v)", err)
	}
}

func TestPagesComeBackWhateverTheirNumberAndKind(t *testing.T) {
	for _, kind := range []frame.Kind{frame.Pack, frame.Hot} {
		for _, n := range []int{1, 31, 32, 33, 63, 64, 65, 130} {
			pages := testPages(n)
			b, x := write(t, kind, pages)
			got, _, err := read(b, x.Root())
			if err != nil {
				t.Fatalf("kind %d, %d pages: %v", kind, n, err)
			}
			if !bytes.Equal(got, pages) {
				t.Errorf("kind %d, %d pages: others came back", kind, n)
			}
			plain, y := raw(t, kind, pages)
			if got, _, err := read(plain, x.Root()); err != nil || !bytes.Equal(got, pages) {
				t.Errorf("kind %d, %d pages, raw: others came back, or %v", kind, n, err)
			}
			if y.Root() != x.Root() {
				t.Errorf("kind %d, %d pages: root depends on the layout", kind, n)
			}
			if x.Size() != int64(len(b)) {
				t.Errorf("kind %d, %d pages: object has %d bytes, Size says %d", kind, n, len(b), x.Size())
			}
		}
	}
}

func TestFramesAreCompressedOnlyIfItSavesEnough(t *testing.T) {
	_, x := write(t, frame.Pack, testPages(64))
	if x.Length(0) >= x.RawSize(0)/2 {
		t.Errorf("a frame of letters has %d bytes of %d", x.Length(0), x.RawSize(0))
	}
	if x.Length(1) != x.RawSize(1) {
		t.Errorf("a frame of random bytes has %d bytes of %d", x.Length(1), x.RawSize(1))
	}
	// A tenth of the frame is zeros: compression saves less than 12 percent.
	page := testPages(64)[32*pack.PageSize:]
	clear(page[:len(page)/10])
	if got := frame.Encode(nil, page); len(got) != len(page) {
		t.Errorf("a frame of which a tenth is zeros has %d bytes of %d", len(got), len(page))
	}
	clear(page[:len(page)/5])
	if got := frame.Encode(nil, page); len(got) >= len(page) {
		t.Error("a frame of which a fifth is zeros is not compressed")
	}
}

func TestEveryChangedByteIsNoticed(t *testing.T) {
	pages := testPages(34)
	b, x := write(t, frame.Pack, pages)
	step := 1
	for i := 0; i < len(b); i += step {
		bad := bytes.Clone(b)
		bad[i] ^= 0x40
		got, _, err := read(bad, x.Root())
		if err == nil && !bytes.Equal(got, pages) {
			t.Fatalf("byte %d is another, other pages came, and there is no error", i)
		}
		if err == nil && i < int(x.HeadSize()) {
			t.Fatalf("byte %d of the head is another, and there is no error", i)
		}
		if i > int(x.HeadSize())+64 {
			step = 97
		}
	}
}

func TestAnotherRootIsRefused(t *testing.T) {
	b, _ := write(t, frame.Pack, testPages(3))
	if _, _, err := read(b, pack.Digest{7}); !errors.Is(err, frame.ErrCorrupt) {
		t.Errorf("error is %v, want %v", err, frame.ErrCorrupt)
	}
}

func TestAHigherVersionIsRefused(t *testing.T) {
	b, x := write(t, frame.Pack, testPages(3))
	b[8] = 2
	if _, _, err := read(b, x.Root()); !errors.Is(err, frame.ErrVersion) {
		t.Errorf("error is %v, want %v", err, frame.ErrVersion)
	}
}

func TestAFrameThatGrowsBeyondItsSizeIsRefused(t *testing.T) {
	// 64 pages of zeros, as zstd, in the place of a frame that has one page.
	bomb := frame.Encode(nil, make([]byte, 64*pack.PageSize))
	h := frame.Header{Kind: frame.Pack, Pages: 1}
	if _, err := h.Decode(make([]byte, pack.PageSize), bomb, 0); !errors.Is(err, frame.ErrCorrupt) {
		t.Errorf("error is %v, want %v", err, frame.ErrCorrupt)
	}
}

func TestAWriterRefusesWhatDoesNotFit(t *testing.T) {
	if _, err := frame.NewWriter(&buffer{}, frame.Pack, testID(), 0); err == nil {
		t.Error("an object without pages")
	}
	if _, err := frame.NewWriter(&buffer{}, frame.Pack, testID(), pack.MaxPages+1); err == nil {
		t.Error("a pack of too many pages")
	}
	if _, err := frame.NewWriter(&buffer{}, 3, testID(), 1); err == nil {
		t.Error("a kind that there is not")
	}
	w, err := frame.NewWriter(&buffer{}, frame.Pack, testID(), 33)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Add(testPages(31)); err == nil {
		t.Error("a frame of 31 pages, want 32")
	}
	if _, err := w.Finish(); err == nil {
		t.Error("finished without frames")
	}
	if err := errors.Join(w.Add(testPages(32)), w.Add(testPages(1))); err != nil {
		t.Fatal(err)
	}
	if err := w.Add(testPages(1)); err == nil {
		t.Error("a frame more than there are")
	}
}

func FuzzParseHeader(f *testing.F) {
	b, _ := write(f, frame.Pack, testPages(33))
	f.Add(b[:frame.HeaderSize])
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == frame.HeaderSize { // give it the right checksum
			data = bytes.Clone(data)
			binary.LittleEndian.PutUint64(data[88:], xxhash.Sum64(data[:88]))
		}
		h, err := frame.ParseHeader(data)
		if err != nil {
			return
		}
		if h.Frames() < 1 || h.FramePages(h.Frames()-1) < 1 || h.IndexSize() > 64<<20 {
			t.Errorf("header of %d pages has %d frames", h.Pages, h.Frames())
		}
	})
}

// FuzzParseIndex gives the parser whole heads, with right checksums.
func FuzzParseIndex(f *testing.F) {
	for _, kind := range []frame.Kind{frame.Pack, frame.Hot} {
		b, x := write(f, kind, testPages(70))
		f.Add(b[:x.HeadSize()])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < frame.HeaderSize {
			return
		}
		data = bytes.Clone(data)
		binary.LittleEndian.PutUint64(data[64:], xxhash.Sum64(data[frame.HeaderSize:]))
		binary.LittleEndian.PutUint64(data[88:], xxhash.Sum64(data[:88]))
		h, err := frame.ParseHeader(data[:frame.HeaderSize])
		if err != nil {
			return
		}
		x, err := frame.ParseIndex(h, data[frame.HeaderSize:], pack.Digest{})
		if err != nil {
			return
		}
		if !bytes.Equal(x.Head(), data) {
			t.Error("an index that is accepted is not written as it was read")
		}
		for i := range x.Frames() {
			if x.Length(i) < 1 || x.Length(i) > x.RawSize(i) || x.Offset(i) < x.HeadSize() {
				t.Errorf("frame %d has %d bytes at %d", i, x.Length(i), x.Offset(i))
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	b, x := write(f, frame.Pack, testPages(33))
	for i := range x.Frames() {
		f.Add(uint8(i), b[x.Offset(i):][:x.Length(i)])
	}
	f.Fuzz(func(t *testing.T, number uint8, data []byte) {
		i := int(number) % x.Frames()
		buf := make([]byte, x.RawSize(i))
		content, err := x.Decode(buf, data, i)
		if err != nil {
			return
		}
		if len(content) != x.RawSize(i) {
			t.Fatalf("frame %d has %d bytes", i, len(content))
		}
		if x.Verify(i, content) == nil && !bytes.Equal(content, testPages(33)[i*32*pack.PageSize:][:len(content)]) {
			t.Error("a frame of other content has the node")
		}
	})
}
