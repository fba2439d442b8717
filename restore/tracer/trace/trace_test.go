package trace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/fork.trace instead of comparing it")

// example is a process that touched a few pages, forked, and executed another program.
func example() *Trace {
	b := NewBuilder(PointTracepoints, time.Unix(1700000000, 123456789).UTC(), "")
	b.Choose(1, 4711)
	b.Map(1, []Region{
		{Start: 0x400000, End: 0x402000, Access: Readable | Executable, Name: "/usr/bin/program"},
		{Start: 0x7f0000000000, End: 0x7f0000010000, Access: Readable | Writable},
	})
	for _, e := range []Event{
		{Time: 10 * time.Microsecond, Kind: KindTouch, Addr: 0x400123, Space: 1, PID: 4711, TID: 4711},
		{Time: 40 * time.Microsecond, Kind: KindTouch, Addr: 0x7f0000003000, Space: 1, PID: 4711, TID: 4712, Write: true},
		{Time: 30 * time.Microsecond, Kind: KindTouch, Addr: 0x7f0000004fff, Space: 1, PID: 4711, TID: 4711, Kernel: true},
		{Time: 3 * time.Millisecond, Kind: KindTouch, Addr: 0x7f0000004000, Space: 1, PID: 4711, TID: 4711, Write: true},
		{Time: 4 * time.Millisecond, Kind: KindFork, Space: 2, Parent: 1, PID: 4713, TID: 4713},
		{Time: 5 * time.Millisecond, Kind: KindTouch, Addr: 0x7f0000003000, Space: 2, PID: 4713, TID: 4713, Write: true},
		{Time: 6 * time.Millisecond, Kind: KindExec, Space: 3, Parent: 2, PID: 4713, TID: 4713},
		{Time: 7 * time.Millisecond, Kind: KindTouch, Addr: 0x1000, Space: 3, PID: 4713, TID: 4713, Write: true, Kernel: true},
		{Time: 8 * time.Millisecond, Kind: KindExit, Space: 3, PID: 4713, TID: 4713},
	} {
		b.Add(e)
	}
	return b.Finish(Ending{End: EndStopped, Length: 9 * time.Millisecond})
}

func mustEncode(t testing.TB, tr *Trace) []byte {
	t.Helper()
	data, err := tr.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestGoldenFileIsWhatIsWritten(t *testing.T) {
	name := filepath.Join("testdata", "fork.trace")
	data := mustEncode(t, example())
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
	if diff := cmp.Diff(example(), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTracesSurviveBeingWritten(t *testing.T) {
	for name, tr := range map[string]*Trace{
		"empty": NewBuilder(PointFentry, time.Unix(0, 0).UTC(), "").Finish(Ending{End: EndExited}),
		"of a cgroup, with losses": NewBuilder(PointKprobe, time.Unix(9, 9).UTC(), "/sys/fs/cgroup/a b").Finish(
			Ending{End: EndBroken, LostRing: 3, LostSpace: math.MaxInt64}),
		"random": random(rand.New(rand.NewPCG(1, 2))),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Read(bytes.NewReader(mustEncode(t, tr)))
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Spaces) == 0 {
				got.Spaces = nil
			}
			if len(got.Regions) == 0 {
				got.Regions = nil
			}
			if len(got.Touches) == 0 {
				got.Touches = nil
			}
			if diff := cmp.Diff(tr, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// random returns a trace of many processes with touches anywhere.
func random(r *rand.Rand) *Trace {
	b := NewBuilder(PointUserTracepoint, time.Unix(1, 1).UTC(), "")
	for i := range uint32(20) {
		b.Add(Event{Kind: KindFork, Space: i + 1, Parent: r.Uint32N(i + 1), PID: r.Uint32(), Time: time.Duration(r.Int64N(1e9))})
	}
	for range 5000 {
		space := r.Uint32N(20) + 1
		b.Add(Event{
			Kind: KindTouch, Space: space, TID: r.Uint32N(50), Addr: r.Uint64N(addressLimit), Time: time.Duration(r.Int64N(1e12)),
			Write: r.IntN(2) == 0, Kernel: r.IntN(2) == 0,
		})
	}
	return b.Finish(Ending{End: EndStopped, Length: time.Second})
}

func TestTouchesTakeFewBytes(t *testing.T) {
	b := NewBuilder(PointFentry, time.Unix(0, 0), "")
	const n = 10000
	for i := range uint64(n) {
		b.Add(Event{Kind: KindTouch, Space: 1, PID: 1, TID: 1, Addr: 1<<46 + i*2*PageSize, Time: time.Duration(i) * 700})
	}
	if size := len(mustEncode(t, b.Finish(Ending{End: EndStopped}))); size > 4*n+1000 {
		t.Errorf("%d touches take %d bytes", n, size)
	}
}

func TestWhatIsNoTraceIsRefused(t *testing.T) {
	good := mustEncode(t, example())
	sum := func(b []byte) []byte {
		binary.LittleEndian.PutUint64(b[len(b)-8:], xxhash.Sum64(b[:len(b)-8]))
		return b
	}
	// at returns the file with a byte changed, and the checksum made right again.
	at := func(off int, to byte) []byte {
		b := bytes.Clone(good)
		b[off] = to
		return sum(b)
	}
	resized := func(b []byte) []byte {
		binary.LittleEndian.PutUint64(b[16:], uint64(len(b)))
		return sum(b)
	}
	damaged := bytes.Clone(good)
	damaged[headerSize+3] ^= 1
	for name, tt := range map[string]struct {
		data []byte
		want error
	}{
		"nothing":                      {nil, ErrCorrupt},
		"something else":               {bytes.Repeat([]byte("x"), 200), ErrCorrupt},
		"a file that was cut off":      {good[:len(good)-1], ErrCorrupt},
		"a file with more behind it":   {append(bytes.Clone(good), 0), ErrCorrupt},
		"a damaged byte":               {damaged, ErrCorrupt},
		"another version":              {at(8, 2), ErrVersion},
		"another page size":            {at(13, 0x20), ErrCorrupt},
		"an unknown point":             {at(24, 9), ErrCorrupt},
		"an unknown end":               {at(25, 0), ErrCorrupt},
		"an unknown blindness":         {at(27, 0x80), ErrCorrupt},
		"a reserved field":             {at(30, 1), ErrCorrupt},
		"losses, and yet complete":     {at(48, 1), ErrCorrupt},
		"an unknown flag":              {at(80, 3), ErrCorrupt},
		"a space before its parent":    {at(headerSize+spaceSize+8, 9), ErrCorrupt},
		"a space of an unknown origin": {at(headerSize+12, 9), ErrCorrupt},
		"more spaces than there are":   {at(64, 200), ErrCorrupt},
		"more regions than there are":  {at(68, 3), ErrCorrupt},
		"more touches than there are":  {at(76, 7), ErrCorrupt},
		"fewer touches":                {at(76, 5), ErrCorrupt},
		"a region of no space":         {at(headerSize+3*spaceSize, 7), ErrCorrupt},
		"a byte behind the touches":    {resized(append(bytes.Clone(good), 1)), ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			if tr, err := Decode(tt.data); !errors.Is(err, tt.want) || tr != nil {
				t.Errorf("Decode returns %v, want %v", err, tt.want)
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
	f.Add(mustEncode(f, example()))
	f.Fuzz(func(t *testing.T, data []byte) {
		// Or else next to nothing would get past the checksum.
		if len(data) >= headerSize+sumSize {
			data = bytes.Clone(data)
			copy(data, magic)
			binary.LittleEndian.PutUint64(data[16:], uint64(len(data)))
			binary.LittleEndian.PutUint64(data[len(data)-8:], xxhash.Sum64(data[:len(data)-8]))
		}
		tr, err := Decode(data)
		if (tr == nil) != (err != nil) {
			t.Fatalf("Decode returns %v and %v", tr, err)
		}
		if err != nil {
			return
		}
		if again := mustEncode(t, tr); !bytes.Equal(again, data) {
			t.Error("it is written in other bytes than it was read from")
		}
		Summarize(tr)
	})
}

func TestBuilderKeepsWhatEventsSay(t *testing.T) {
	tr := example()
	want := []Space{
		{ID: 1, PID: 4711, Origin: OriginChosen, Ended: Alive},
		{ID: 2, PID: 4713, Parent: 1, Origin: OriginFork, Began: 4 * time.Millisecond, Ended: 6 * time.Millisecond},
		{ID: 3, PID: 4713, Parent: 2, Origin: OriginExec, Began: 6 * time.Millisecond, Ended: 8 * time.Millisecond},
	}
	if diff := cmp.Diff(want, tr.Spaces); diff != "" {
		t.Errorf("spaces (-want +got):\n%s", diff)
	}
	for i, x := range tr.Touches {
		if x.Addr%PageSize != 0 || i > 0 && x.Time < tr.Touches[i-1].Time {
			t.Errorf("touch %d is %+v", i, x)
		}
	}
	if !tr.Complete() || len(tr.Chosen()) != 1 {
		t.Errorf("complete: %t, chosen: %d", tr.Complete(), tr.Chosen())
	}
}

func TestTouchesOfASpaceWhoseBeginningWasLostAreKept(t *testing.T) {
	b := NewBuilder(PointFentry, time.Now(), "")
	b.Add(Event{Kind: KindTouch, Space: 5, PID: 7, TID: 7, Time: 3})
	b.Add(Event{Kind: KindTouch, Space: 0, PID: 7, TID: 7})
	tr := b.Finish(Ending{End: EndStopped, Length: 9, LostRing: 1})
	if len(tr.Touches) != 1 || len(tr.Spaces) != 1 || tr.Spaces[0].Origin != OriginUnknown || tr.Spaces[0].PID != 7 || tr.Lost() != 2 {
		t.Errorf("trace is %+v", tr)
	}
}

func TestNewMappingsReplaceThoseThatTheyOverlap(t *testing.T) {
	b := NewBuilder(PointFentry, time.Now(), "")
	b.Choose(1, 1)
	region := func(from, to uint64, name string) Region {
		return Region{Space: 1, Start: from * PageSize, End: to * PageSize, Name: name}
	}
	b.Map(1, []Region{region(1, 2, "a"), region(3, 6, "b"), region(8, 9, "c")})
	b.Map(1, []Region{region(2, 3, "d"), region(5, 8, "e")})
	b.Map(2, []Region{region(1, 2, "of no space")})
	got := b.Finish(Ending{End: EndStopped}).Regions
	want := []Region{region(1, 2, "a"), region(2, 3, "d"), region(5, 8, "e"), region(8, 9, "c")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSummaryCountsPages(t *testing.T) {
	s := Summarize(example())
	want := Count{Pages: 5, Read: 2, Write: 3, Later: 1, User: 3, Kernel: 2}
	if diff := cmp.Diff(want, s.Total); diff != "" {
		t.Errorf("total (-want +got):\n%s", diff)
	}
	var sum uint64
	for _, b := range s.Times {
		sum += b.Pages
	}
	if sum != 5 || s.Times[0].Pages != 3 || s.Times[len(s.Times)-1].Until != 8*time.Millisecond {
		t.Errorf("times are %+v", s.Times)
	}
	names := make(map[string]uint64)
	for _, r := range s.Regions {
		names[r.Name] = r.Pages
	}
	if diff := cmp.Diff(map[string]uint64{"/usr/bin/program": 1, "[anonymous]": 2, "[unknown]": 2}, names); diff != "" {
		t.Errorf("regions (-want +got):\n%s", diff)
	}
	if len(s.Spaces) != 3 || s.Spaces[0].Count.Pages != 3 || s.Spaces[1].Count.Pages != 1 {
		t.Errorf("spaces are %+v", s.Spaces)
	}
}

func TestSummaryOfTheLongestRecordingEnds(t *testing.T) {
	b := NewBuilder(PointFentry, time.Now(), "")
	b.Add(Event{Kind: KindTouch, Space: 1, Time: math.MaxInt64})
	if s := Summarize(b.Finish(Ending{End: EndStopped})); len(s.Times) > 64 {
		t.Errorf("%d buckets", len(s.Times))
	}
}

func TestNumbersHaveNames(t *testing.T) {
	for p := PointFentry; p <= lastPoint+1; p++ {
		if known := !strings.HasPrefix(p.String(), "point "); known != p.valid() {
			t.Errorf("point %d is called %q", uint8(p), p)
		}
	}
	for o := OriginUnknown; o <= lastOrigin+1; o++ {
		if known := !strings.HasPrefix(o.String(), "origin "); known != (o <= lastOrigin) {
			t.Errorf("origin %d is called %q", uint8(o), o)
		}
	}
	for e := EndBroken; e <= lastEnd+1; e++ {
		if known := !strings.HasPrefix(e.String(), "end "); known != e.valid() {
			t.Errorf("end %d is called %q", uint8(e), e)
		}
	}
	if got := len(knownBlind.Texts()); got != 6 {
		t.Errorf("%d kinds of touches have a text", got)
	}
	if got := (Readable | Executable | Shared).String(); got != "r-xs" {
		t.Errorf("access is %q", got)
	}
}
