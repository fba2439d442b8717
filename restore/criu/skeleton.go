package criu

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"google.golang.org/protobuf/proto"

	"thaw/restore"
)

// SkeletonMarker is the file that tells a skeleton from a folder of complete images. `criu restore` does not look at
// it. Restoring a skeleton without --lazy-pages is an error that CRIU does not notice; who starts CRIU can.
const SkeletonMarker = "thaw-skeleton"

const skeletonNote = "These are CRIU images without the contents of the pages that are restored lazily.\n" +
	"Restore them with --lazy-pages and a server that has the pages. Without it, CRIU hangs.\n"

// maxEntryPages is the most pages that an entry of a skeleton's pagemap has: 4 MiB, as in CRIU's own dumps. CRIU's
// daemon takes a buffer of the size of the largest entry and counts its bytes in an int.
const maxEntryPages = 1024

// WriteSkeleton writes into the empty folder dir what a lazy restore of the images needs besides the lazy pages: the
// pages that are not lazy, pagemaps that say so, and a copy of all other files of the folder, those of the container
// runtime too. Parent dumps are flattened into it.
//
// Whoever may read the images may read the folder and its files: processes that are restored in a user namespace open
// some of them by themselves, from a descriptor of the folder. Who may not come at them by their path must be kept out by
// a folder above.
//
// The files are not synced. On error the folder is left as it is.
func (im *Images) WriteSkeleton(dir string) error {
	w := skeletonWriter{im: im, dir: dir, buf: make([]byte, 1<<20)}
	if err := w.write(); err != nil {
		return fmt.Errorf("write skeleton: %w", err)
	}
	return nil
}

type skeletonWriter struct {
	im      *Images
	dir     string
	pagesID uint32 // of the pages file written last
	buf     []byte
}

func (w *skeletonWriter) write() error {
	if err := w.copyRest(); err != nil {
		return err
	}
	for i := range w.im.Tasks {
		t := &w.im.Tasks[i]
		if t.Zombie {
			continue
		}
		if err := w.writePages(fmt.Sprintf("pagemap-%d.img", t.PID), t.Lazy, t.Eager); err != nil {
			return err
		}
		if w.im.memory[t.PID].hasBacked() {
			if err := w.writeMM(t); err != nil {
				return err
			}
		}
	}
	for _, s := range w.im.shared {
		if err := w.writePages(s.name, nil, s.runs); err != nil {
			return err
		}
	}
	if err := w.writeMappable(); err != nil {
		return err
	}
	err := w.create(SkeletonMarker, 0o600, func(f *os.File) error {
		_, err := f.WriteString(skeletonNote)
		return err
	})
	if err != nil {
		return err
	}
	info, err := os.Stat(w.im.dir)
	if err != nil {
		return err
	}
	return os.Chmod(w.dir, 0o700|info.Mode()&0o055)
}

// copyRest copies the files that stay as they are. What is not a regular file is not part of the images: the link to
// the parent, sockets, folders of other dumps.
func (w *skeletonWriter) copyRest() error {
	entries, err := os.ReadDir(w.im.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if !e.Type().IsRegular() || name == SkeletonMarker || name == mappableFile {
			continue
		}
		if w.im.isRewritten(name) || strings.HasSuffix(name, ".img") && (strings.HasPrefix(name, "pages-") || strings.HasPrefix(name, "pagemap-")) {
			continue
		}
		if err := w.copyFile(w.im.dir, name); err != nil {
			return err
		}
	}
	return nil
}

func (w *skeletonWriter) copyFile(from, name string) error {
	src, err := os.Open(filepath.Join(from, name))
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	return w.create(name, info.Mode(), func(f *os.File) error {
		_, err := io.Copy(f, src)
		return err
	})
}

// create makes the file called name, which must not exist, readable for those who may read by mode, and has fill write it.
func (w *skeletonWriter) create(name string, mode fs.FileMode, fill func(*os.File) error) error {
	f, err := os.OpenFile(filepath.Join(w.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(fill(f), f.Chmod(0o600|mode&0o044), f.Close())
}

// writePages writes a pagemap with the entries of both lists, and a pages file with the bytes of the eager ones.
func (w *skeletonWriter) writePages(name string, lazy, eager []Run) error {
	w.pagesID++
	id := w.pagesID
	info, err := os.Stat(filepath.Join(w.im.dir, name))
	if err != nil {
		return err
	}
	err = w.create(fmt.Sprintf("pages-%d.img", id), info.Mode(), func(f *os.File) error {
		for i := range eager {
			if err := w.copyRun(f, &eager[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.create(name, info.Mode(), func(f *os.File) error {
		iw := newImageWriter(f, magicPagemap)
		iw.record(pagemapHead(id))
		for len(lazy) > 0 || len(eager) > 0 {
			if len(eager) == 0 || len(lazy) > 0 && lazy[0].Addr < eager[0].Addr {
				writeEntries(iw, lazy[0], flagLazy)
				lazy = lazy[1:]
			} else {
				writeEntries(iw, eager[0], flagPresent)
				eager = eager[1:]
			}
		}
		return iw.flush()
	})
}

func pagemapHead(pagesID uint32) *pagemap.PagemapHead { return &pagemap.PagemapHead{PagesId: &pagesID} }

// writeEntries writes the entries of one run. Their number of pages goes into both fields that have carried it: CRIU
// reads one or the other, by its version.
func writeEntries(iw *imageWriter, r Run, flags uint32) {
	for r.Pages > 0 {
		n := min(r.Pages, maxEntryPages)
		iw.record(&pagemap.PagemapEntry{
			Vaddr:         proto.Uint64(r.Addr),
			CompatNrPages: proto.Uint32(uint32(n)),
			Flags:         proto.Uint32(flags),
			NrPages:       proto.Uint64(n),
		})
		r.Addr += n * restore.PageSize
		r.Pages -= n
	}
}

func (w *skeletonWriter) copyRun(f *os.File, r *Run) error {
	src := w.im.Reader(r.File)
	want := int64(r.Pages) * restore.PageSize
	// The wrapper hides methods of *os.File that would make the copy go by other ways, with small buffers.
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, io.NewSectionReader(src, r.Offset, want), w.buf)
	if err != nil {
		return err
	}
	if n != want {
		return badFile(w.im.fileName(r.File), "ends at byte %d, %d bytes short: it was truncated while it was read", r.Offset+n, want-n)
	}
	return nil
}
