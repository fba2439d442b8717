package baseline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"thaw/checkpoint"
)

// CRIUImages are the images of a process whose only memory of interest is one placed image.
type CRIUImages struct {
	tools  checkpoint.Tools
	dir    string
	images string
	// PID is the number that the process had, by which CRIU's server knows its memory.
	PID int
}

// DumpForCRIU has CRIU dump a process with so many pages of the source, one after the other, at base. It uses dir, which
// must be absolute and stays the caller's.
func DumpForCRIU(ctx context.Context, criu, dir string, source *os.File, base, pages uint64) (_ *CRIUImages, err error) {
	c, err := start("holder", []*os.File{source}, strconv.FormatUint(base, 10), strconv.FormatUint(pages, 10))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if _, err := c.line(ctx); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("holder is not ready: %w", err)
	}
	im := &CRIUImages{tools: checkpoint.Tools{CRIU: criu}, dir: dir, images: filepath.Join(dir, "images"), PID: c.cmd.Process.Pid}
	err = im.tools.DumpProcess(ctx, im.PID, checkpoint.DumpOptions{Images: im.images, Work: filepath.Join(dir, "dump")})
	if err != nil {
		return nil, err
	}
	return im, nil
}

// CRIUServer is a run of CRIU's own server of lazy pages. Not safe for concurrent use.
type CRIUServer struct {
	server *checkpoint.LazyPages
	work   string
}

// StartServer starts CRIU's server for one restore and returns when it listens.
func (im *CRIUImages) StartServer(ctx context.Context) (*CRIUServer, error) {
	work, err := os.MkdirTemp(im.dir, "work-*")
	if err != nil {
		return nil, err
	}
	server, err := im.tools.StartLazyPages(ctx, checkpoint.LazyPagesOptions{Images: im.images, Work: work})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(work))
	}
	return &CRIUServer{server, work}, nil
}

// Socket is where the server expects processes: each sends the number that it has in the images, as an int32, and then a
// byte with its userfaultfd. After the last one comes [CRIUFinished].
func (s *CRIUServer) Socket() string { return filepath.Join(s.work, checkpoint.LazyPagesSocket) }

// CRIUFinished tells CRIU's server that all processes are restored. From then on it brings the rest, too.
const CRIUFinished = 0x52535446

// Close ends the server. Processes whose memory is not complete have to be gone before.
func (s *CRIUServer) Close() error {
	// It may have ended by itself already, complaining that its restorer is gone.
	_ = s.server.Stop()
	return os.RemoveAll(s.work)
}
