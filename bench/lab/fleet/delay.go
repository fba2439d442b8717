package fleet

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// A delay passes on connections, as if both ends were apart. All of a round trip's time lies on what the client sends, and on the making of the
// connection: for whoever asks and waits that is the same as a half of it on each way, and what a node answers, which is nearly all that is
// sent here, is passed on by the kernel (splice) without being copied. What it does not show is what a long way does to TCP's windows:
// with 10 Gbit/s and a millisecond that is 1.25 MB in flight.
type delay struct {
	listener net.Listener
	dial     func(ctx context.Context) (net.Conn, error)
	trip     time.Duration // there and back

	ctx    context.Context //nolint:containedctx // of everything that it has started
	cancel context.CancelFunc
	using  sync.WaitGroup
}

// newDelay passes on what comes to l. The caller closes it.
func newDelay(l net.Listener, trip time.Duration, dial func(ctx context.Context) (net.Conn, error)) *delay {
	ctx, cancel := context.WithCancel(context.Background())
	d := &delay{listener: l, dial: dial, trip: trip, ctx: ctx, cancel: cancel}
	d.using.Go(d.accept)
	return d
}

func (d *delay) close() error {
	d.cancel()
	err := d.listener.Close()
	d.using.Wait()
	return err
}

func (d *delay) accept() {
	for {
		client, err := d.listener.Accept()
		if err != nil {
			return
		}
		d.using.Go(func() { d.pass(client) })
	}
}

// pass passes on one connection until one of its ends closes it.
func (d *delay) pass(client net.Conn) {
	defer client.Close()
	if !d.wait(time.Now().Add(d.trip)) {
		return
	}
	server, err := d.dial(d.ctx)
	if err != nil {
		return
	}
	defer server.Close()
	stop := context.AfterFunc(d.ctx, func() { _ = errors.Join(client.Close(), server.Close()) })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() {
		d.late(server, client)
		closeWrite(server)
	})
	both.Go(func() {
		_, _ = io.Copy(client, server)
		closeWrite(client)
	})
	both.Wait()
}

// A piece is what was read at a time.
type piece struct {
	due  time.Time
	data []byte
}

// late passes on what it reads, a trip later.
func (d *delay) late(to io.Writer, from io.Reader) {
	pieces := make(chan piece, 64)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(pieces)
		for {
			buf := make([]byte, 16<<10)
			n, err := from.Read(buf)
			if n > 0 {
				pieces <- piece{time.Now().Add(d.trip), buf[:n]}
			}
			if err != nil {
				return
			}
		}
	})
	defer reader.Wait()
	broken := false
	for p := range pieces { // to its end, so that the reader never waits
		if broken || !d.wait(p.due) {
			continue
		}
		_, err := to.Write(p.data)
		broken = err != nil
	}
}

// wait waits until then; it reports false if the proxy ends before.
func (d *delay) wait(then time.Time) bool {
	timer := time.NewTimer(time.Until(then))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-d.ctx.Done():
		return false
	}
}

func closeWrite(c net.Conn) {
	if c, ok := c.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite() // of a connection that may be gone
	}
}
