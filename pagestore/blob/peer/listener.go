package peer

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// listener closes connections that are too many as soon as they come: one that is not accepted would wait behind those that say nothing.
type listener struct {
	net.Listener
	free chan struct{}
}

func newListener(l net.Listener, connections int) *listener {
	return &listener{Listener: l, free: make(chan struct{}, connections)}
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.free <- struct{}{}:
			return &conn{Conn: c, release: func() { <-l.free }}, nil
		default:
			c.Close()
		}
	}
}

// conn is a connection of a client, which has not shown who it is as long as known is false.
type conn struct {
	net.Conn
	known   atomic.Bool
	close   sync.Once
	release func()
}

// known notes that the client of a connection has shown who it is.
func known(c net.Conn) {
	if c, ok := c.(*conn); ok {
		c.known.Store(true)
	}
}

// Bounds for what is read, and not looked at, from a client that was turned away.
const (
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

// Close closes the connection. A client that was turned away may have sent a request already; were that left unread, the kernel would reset the
// connection, and the client could not read why: so it is read, for a moment.
func (c *conn) Close() error {
	err := net.ErrClosed
	c.close.Do(func() {
		defer c.release()
		if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && !c.known.Load() && half.CloseWrite() == nil {
			c.SetReadDeadline(time.Now().Add(lingerTime))
			io.CopyN(io.Discard, c.Conn, lingerBytes)
		}
		err = c.Conn.Close()
	})
	return err
}
