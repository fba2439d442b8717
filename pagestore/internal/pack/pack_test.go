package pack_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"thaw/internal/durable"
	"thaw/internal/testenv"
	"thaw/pagestore/internal/pack"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

const golden = "testdata/three-pages.pack"

func TestMain(m *testing.M) { testenv.Main(m) }

// testPage returns a page of one letter.
func testPage(letter byte) []byte { return bytes.Repeat([]byte{letter}, pack.PageSize) }

// write makes a pack with a page for each letter.
func write(t testing.TB, path, letters string) *pack.Footer {
	t.Helper()
	f, err := durable.Disk.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := pack.NewWriter(f)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(letters) {
		page := testPage(letters[i])
		digest := pack.Digest(sha256.Sum256(page))
		if err := w.WritePages(page, w.Add(&digest, pack.Sum(page))); err != nil {
			t.Fatal(err)
		}
	}
	footer, err := w.Seal()
	if err != nil {
		t.Fatal(err)
	}
	return footer
}

func TestGoldenPack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pack")
	footer := write(t, path, "abc")
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if *rewrite {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the format has changed: a pack of three pages is not what the golden file has")
	}
	const id = "e01e35588d3d9dd573ae7155854f58c9c0ffd7596ebe7fa42100760db9a88a56"
	if footer.ID.String() != id {
		t.Errorf("id is %s, want %s", footer.ID, id)
	}
	if int64(len(want)) != pack.FileSize(3) {
		t.Errorf("file has %d bytes, FileSize says %d", len(want), pack.FileSize(3))
	}
}

func TestFooterHasTheHashesOfThePages(t *testing.T) {
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	f, err := pack.ReadFooter(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if f.Pages() != 3 {
		t.Fatalf("%d pages, want 3", f.Pages())
	}
	for i := range uint32(3) {
		page := testPage('a' + byte(i))
		if f.Digest(i) != sha256.Sum256(page) || f.Sum(i) != pack.Sum(page) {
			t.Errorf("page %d: digest %s, sum %x", i, f.Digest(i), f.Sum(i))
		}
		if got := data[pack.Offset(i):][:pack.PageSize]; !bytes.Equal(got, page) {
			t.Errorf("page %d is not at its offset", i)
		}
	}
}

// TestEveryFlippedBitIsNoticed flips each byte of everything that is not a page.
func TestEveryFlippedBitIsNoticed(t *testing.T) {
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		if off := int64(i); off >= pack.Offset(0) && off < pack.Offset(3) {
			continue
		}
		data[i] ^= 0x10
		if _, err := pack.ReadFooter(bytes.NewReader(data), int64(len(data))); !errors.Is(err, pack.ErrCorrupt) && !errors.Is(err, pack.ErrVersion) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		data[i] ^= 0x10
	}
}

func TestReadFooterRefusesOtherLengths(t *testing.T) {
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 71, 72, 4096, len(data) / 2, len(data) - 4096, len(data) - 1} {
		if _, err := pack.ReadFooter(bytes.NewReader(data[:n]), int64(n)); !errors.Is(err, pack.ErrCorrupt) {
			t.Errorf("cut off at %d: %v", n, err)
		}
	}
	for _, n := range []int{1, 40, 4096, 4136} {
		longer := append(bytes.Clone(data), make([]byte, n)...)
		if _, err := pack.ReadFooter(bytes.NewReader(longer), int64(len(longer))); !errors.Is(err, pack.ErrCorrupt) {
			t.Errorf("%d bytes longer: %v", n, err)
		}
		repeated := append(bytes.Clone(data), data[len(data)-n:]...)
		if _, err := pack.ReadFooter(bytes.NewReader(repeated), int64(len(repeated))); !errors.Is(err, pack.ErrCorrupt) {
			t.Errorf("last %d bytes twice: %v", n, err)
		}
	}
}

func openGolden(t *testing.T) (*pack.Mapped, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pack")
	footer := write(t, path, "abcdefghij")
	m, err := pack.Open(path, footer.ID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m, path
}

func TestMappedVerifiesEachPageOnce(t *testing.T) {
	m, path := openGolden(t)
	if n := m.Verified(0, 10); n != 0 {
		t.Errorf("%d pages are verified before any was read", n)
	}
	for page, want := range map[uint32]int{0: 2, 5: 2, 9: 1, 10: 0, 1 << 31: 0} {
		if n, err := m.Verify(page, 2); n != want || err != nil {
			t.Errorf("Verify(%d, 2): %d, %v; want %d", page, n, err, want)
		}
	}
	for page, want := range map[uint32]int{0: 2, 1: 1, 2: 0, 5: 2, 9: 1, 10: 0} {
		if n := m.Verified(page, 10); n != want {
			t.Errorf("Verified(%d, 10) is %d, want %d", page, n, want)
		}
	}
	// A page that was found intact is not read again.
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, page := range []uint32{0, 3} {
		if _, err := f.WriteAt([]byte("x"), pack.Offset(page)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := m.Verify(0, 10); n != 3 || !errors.Is(err, pack.ErrCorrupt) {
		t.Errorf("Verify: %d, %v; want the 3 pages before the changed one that is read now", n, err)
	}
	if n, err := m.Verify(4, 10); n != 6 || err != nil {
		t.Errorf("Verify behind it: %d, %v", n, err)
	}
}

func TestMappedOfAnotherID(t *testing.T) {
	_, path := openGolden(t)
	if _, err := pack.Open(path, pack.ID{1}); !errors.Is(err, pack.ErrCorrupt) {
		t.Errorf("error is %v, want %v", err, pack.ErrCorrupt)
	}
}

func TestMappedDigests(t *testing.T) {
	m, path := openGolden(t)
	if err := m.CheckFooter(); err != nil {
		t.Fatal(err)
	}
	digest := pack.Digest(sha256.Sum256(testPage('c')))
	for page, want := range map[uint32]bool{1: false, 2: true, 3: false, 10: false, 1 << 31: false} {
		if got, err := m.HasDigest(page, &digest); got != want || err != nil {
			t.Errorf("HasDigest(%d): %v, %v", page, got, err)
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{0xff}, pack.Offset(10)+5); err != nil {
		t.Fatal(err)
	}
	if err := m.CheckFooter(); !errors.Is(err, pack.ErrCorrupt) {
		t.Errorf("a digest was changed: %v", err)
	}
}

func TestMappedFileThatShrinks(t *testing.T) {
	m, path := openGolden(t)
	if n, err := m.Verify(0, 1); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if n, err := m.Verify(0, 10); n != 1 || !errors.Is(err, syscall.EIO) {
		t.Errorf("Verify: %d, %v", n, err)
	}
	if err := m.CheckFooter(); !errors.Is(err, syscall.EIO) {
		t.Errorf("CheckFooter: %v", err)
	}
	if _, err := m.HasDigest(0, new(pack.Digest)); !errors.Is(err, syscall.EIO) {
		t.Errorf("HasDigest: %v", err)
	}
	m.Prefetch(0, 10, func() bool { return false })
}

func TestIDText(t *testing.T) {
	want := pack.ID{0xab, 1}
	got, err := pack.ParseID(want.String())
	if err != nil || got != want {
		t.Errorf("ParseID(%s) is %s, %v", want, got, err)
	}
	for _, bad := range []string{"", "ab", want.String() + "00", "zz" + want.String()[2:]} {
		if _, err := pack.ParseID(bad); err == nil {
			t.Errorf("ParseID(%q) was accepted", bad)
		}
	}
}

func FuzzReadFooter(f *testing.F) {
	data, err := os.ReadFile(golden)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:len(data)-1])
	f.Add([]byte("THAWPACK"))
	f.Fuzz(func(t *testing.T, data []byte) {
		footer, err := pack.ReadFooter(bytes.NewReader(data), int64(len(data)))
		if (err == nil) != (footer != nil) {
			t.Fatalf("footer %v and error %v", footer, err)
		}
		path := filepath.Join(t.TempDir(), "pack")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			// A server looks at less, but what it opens must not take it beyond the file.
			m, err := pack.Open(path, idInTrailer(data))
			if err != nil {
				return
			}
			m.Verify(0, pack.MaxPages)
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			return
		}
		m, err := pack.Open(path, footer.ID)
		if err != nil {
			t.Fatalf("a pack with a sound footer cannot be opened: %v", err)
		}
		defer m.Close()
		if int(m.Pages()) != footer.Pages() {
			t.Fatalf("%d and %d pages", m.Pages(), footer.Pages())
		}
		var digests []pack.Digest
		for i := range m.Pages() {
			digests = append(digests, footer.Digest(i))
		}
		for i := range digests {
			if ok, err := m.HasDigest(uint32(i), &digests[i]); !ok || err != nil {
				t.Fatalf("page %d: %v, %v", i, ok, err)
			}
		}
	})
}

// idInTrailer returns what would be the id of a pack.
func idInTrailer(data []byte) (id pack.ID) {
	if len(data) >= 72 {
		copy(id[:], data[len(data)-72+16:])
	}
	return id
}

func TestPagesMayBeWrittenInAnyOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "in order")
	write(t, path, "xyz")
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "backwards")
	f, err := durable.Disk.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := pack.NewWriter(f)
	if err != nil {
		t.Fatal(err)
	}
	x, y, z := testPage('x'), testPage('y'), testPage('z')
	for i, page := range [][]byte{x, y, z} {
		digest := pack.Digest(sha256.Sum256(page))
		if n := w.Add(&digest, pack.Sum(page)); n != uint32(i) {
			t.Errorf("page %d has number %d", i, n)
		}
	}
	if w.Pages() != 3 || w.Room() != pack.MaxPages-3 {
		t.Errorf("%d pages, room for %d", w.Pages(), w.Room())
	}
	if err := errors.Join(w.WritePages(append(y, z...), 1), w.WritePages(x, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Seal(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the pack differs from one that was written in order")
	}
}
