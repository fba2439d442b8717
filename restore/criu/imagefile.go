package criu

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A magic is the number at the start of an image file that says what it holds. They are part of CRIU's format.
type magic uint32

const (
	magicCommon    magic = 0x54564319 // before the file's own magic, since image version 2
	magicInventory magic = 0x58313116 // stands alone
	magicPstree    magic = 0x50273030
	magicCore      magic = 0x55053847
	magicMM        magic = 0x57492820
	magicPagemap   magic = 0x56084025
	magicFiles     magic = 0x56303138
	magicMounts    magic = 0x55563928
)

// maxEntry bounds the size of one record in bytes. The largest in real images is the memory map of a task: 65530
// mappings (the kernel's default limit) make 4 MiB.
const maxEntry = 256 << 20

// An entryReader reads the records of one image file: each is its size as a little-endian uint32 and a protobuf
// message of that size.
type entryReader struct {
	name  string
	r     io.Reader
	left  int64 // bytes of the file not yet read
	index int   // of the record read last, from 0; -1 before the first
	buf   []byte
}

// newEntryReader reads the magic numbers of a file of size bytes. name is for error messages.
func newEntryReader(r io.Reader, size int64, name string, want magic) (*entryReader, error) {
	er := &entryReader{name: name, r: bufio.NewReaderSize(r, 1<<16), left: size, index: -1}
	var word [4]byte
	if err := er.read(word[:]); err != nil {
		return nil, badFile(name, "is shorter than its magic number")
	}
	got := magic(binary.LittleEndian.Uint32(word[:]))
	if got == magicCommon && want != magicInventory {
		if err := er.read(word[:]); err != nil {
			return nil, badFile(name, "is shorter than its magic numbers")
		}
		got = magic(binary.LittleEndian.Uint32(word[:]))
	}
	if got != want {
		return nil, badFile(name, "has magic number %#x instead of %#x: it is another kind of file", uint32(got), uint32(want))
	}
	return er, nil
}

// read fills b, or returns io.ErrUnexpectedEOF.
func (er *entryReader) read(b []byte) error {
	if int64(len(b)) > er.left {
		return io.ErrUnexpectedEOF
	}
	n, err := io.ReadFull(er.r, b)
	er.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// next decodes the next record into m and refuses fields that m does not have. It returns io.EOF after the last.
func (er *entryReader) next(m proto.Message) error {
	if er.left == 0 {
		return io.EOF
	}
	er.index++
	var word [4]byte
	if err := er.read(word[:]); err != nil {
		return badEntry(er.name, er.index, "the file ends inside the record's size: it is truncated")
	}
	size := binary.LittleEndian.Uint32(word[:])
	if size > maxEntry || int64(size) > er.left {
		return badEntry(er.name, er.index, "the record has %d bytes and %d are left: the file is truncated or damaged", size, er.left)
	}
	if cap(er.buf) < int(size) {
		er.buf = make([]byte, size)
	}
	er.buf = er.buf[:size]
	if err := er.read(er.buf); err != nil {
		return &ImageError{File: er.name, Entry: er.index, Err: err, Reason: "the file cannot be read to its end"}
	}
	if err := proto.Unmarshal(er.buf, m); err != nil {
		return badEntry(er.name, er.index, "the record is damaged: %v", err)
	}
	return nil
}

// strict is next for records of which every field must be understood.
func (er *entryReader) strict(m proto.Message) error {
	if err := er.next(m); err != nil {
		return err
	}
	if name := unknownField(m.ProtoReflect()); name != "" {
		return unsupported(er.name, er.index, "%s has a field that is not known: the images were written by a newer CRIU", name)
	}
	return nil
}

// end returns an error unless all records have been read.
func (er *entryReader) end() error {
	if er.left != 0 {
		return badEntry(er.name, er.index+1, "there are %d bytes after the last record", er.left)
	}
	return nil
}

// unknownField returns the name of the first message in the tree of m that has a field its definition lacks, or "".
func unknownField(m protoreflect.Message) (found string) {
	if len(m.GetUnknown()) > 0 {
		return string(m.Descriptor().Name())
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Kind() != protoreflect.MessageKind:
		case fd.IsList():
			for i := 0; i < v.List().Len() && found == ""; i++ {
				found = unknownField(v.List().Get(i).Message())
			}
		default: // the images have no maps
			found = unknownField(v.Message())
		}
		return found == ""
	})
	return found
}

// An imageFile is an opened image and its records.
type imageFile struct {
	*entryReader
	f *os.File
}

func openImage(path, name string, want magic) (*imageFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fileError(name, err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fileError(name, err)
	}
	if !st.Mode().IsRegular() {
		f.Close()
		return nil, badFile(name, "is not a regular file")
	}
	er, err := newEntryReader(f, st.Size(), name, want)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &imageFile{er, f}, nil
}

func (im *imageFile) Close() error { return im.f.Close() }

// readImage opens the image file at path and has parse read its records.
func readImage[T any](path, name string, want magic, parse func(*entryReader) (T, error)) (T, error) {
	im, err := openImage(path, name, want)
	if err != nil {
		var zero T
		return zero, err
	}
	defer im.Close()
	return parse(im.entryReader)
}

// An imageWriter writes an image file record by record. Errors stick and come out of flush.
type imageWriter struct {
	w   *bufio.Writer
	buf []byte
	err error
}

func newImageWriter(w io.Writer, m magic) *imageWriter {
	iw := &imageWriter{w: bufio.NewWriterSize(w, 1<<16)}
	if m != magicInventory {
		iw.word(uint32(magicCommon))
	}
	iw.word(uint32(m))
	return iw
}

func (iw *imageWriter) word(v uint32) {
	if iw.err == nil {
		_, iw.err = iw.w.Write(binary.LittleEndian.AppendUint32(nil, v))
	}
}

func (iw *imageWriter) record(m proto.Message) {
	if iw.err != nil {
		return
	}
	if iw.buf, iw.err = (proto.MarshalOptions{}).MarshalAppend(iw.buf[:0], m); iw.err == nil {
		iw.raw(iw.buf)
	}
}

// raw writes a record that is encoded already.
func (iw *imageWriter) raw(record []byte) {
	iw.word(uint32(len(record)))
	if iw.err == nil {
		_, iw.err = iw.w.Write(record)
	}
}

func (iw *imageWriter) flush() error {
	if iw.err != nil {
		return iw.err
	}
	return iw.w.Flush()
}
