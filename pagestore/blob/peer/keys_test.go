package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"thaw/pagestore/blob"
)

func TestOnlyTheRightCertificatesTalkToEachOther(t *testing.T) {
	ours := must(NewAuthority())(t)
	other := must(NewAuthority())(t)
	a, _ := keysOf(t, ours, "a", time.Hour)
	b, _ := keysOf(t, ours, "b", time.Hour)
	c, _ := keysOf(t, ours, "c", time.Hour)
	old, _ := keysOf(t, ours, "b", -time.Minute)
	// Strangers that believe us: without that they would hang up by themselves.
	stranger := func(node string) *Keys {
		cert := must(other.Issue(node, time.Hour))(t)
		cert.Authority = append(cert.Authority, ours.PEM()...)
		return must(OpenKeys(must(cert.Write(t.TempDir()))(t), nil))(t)
	}
	for _, tt := range []struct {
		name           string
		client, server *Keys
		text           string // of the error; "" is none
	}{
		{"both are right", a, b, ""},
		{"the server is another node", a, c, "it is that of node c, and we asked for b"},
		{"the server is of another authority", a, stranger("b"), "unknown authority"},
		{"the server's time is over", a, old, "expired"},
		{"the client is of another authority", stranger("a"), b, "remote error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			protocols(t, func(t *testing.T, http2 bool) {
				n := loopback(t)
				src := &memory{blobs: map[string][]byte{packKey: content(100)}}
				start(t, n, NewServer(src, tt.server, ServerOptions{Allow: onlyTeam}))
				_, err := readAll(connect(t, n, tt.client, ClientOptions{http2: http2}), packKey, 0, -1)
				if tt.text == "" {
					if err != nil {
						t.Fatal(err)
					}
					return
				}
				if http2 && tt.text == "remote error" {
					if err == nil {
						t.Error("no error")
					}
				} else if !errors.Is(err, ErrCertificate) || !errors.Is(err, blob.ErrDenied) || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("error is %v, want that of a certificate that says %q", err, tt.text)
				}
				if src.lookups.Load() > 0 {
					t.Error("the blob was looked up")
				}
			})
		})
	}
}

func TestAServerTurnsAwayWhoDoesNotShowACertificateOrSpeaksAnOldTLS(t *testing.T) {
	authority := must(NewAuthority())(t)
	a, _ := keysOf(t, authority, "a", time.Hour)
	b, _ := keysOf(t, authority, "b", time.Hour)
	good := a.w.get()
	for _, tt := range []struct {
		name   string
		change func(c *tls.Config)
		text   string // of the error; "" is none
	}{
		{"as it should be", func(c *tls.Config) {}, ""},
		{"no certificate", func(c *tls.Config) { c.Certificates, c.GetClientCertificate = nil, nil }, "certificate required"},
		{"TLS 1.2", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }, "protocol version"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := loopback(t)
			start(t, n, NewServer(&memory{}, b, ServerOptions{Allow: onlyTeam}))
			config := good.client("b")
			tt.change(config)
			c, err := tls.Dial("tcp", n.Addr().String(), config)
			if err == nil { // in TLS 1.3 the client is done before the server has looked at its certificate
				io.WriteString(c, "GET /blob/v1/team/packs/abc HTTP/1.1\r\nHost: x\r\n\r\n")
				_, err = c.Read(make([]byte, 1))
				c.Close()
			}
			if tt.text == "" && err != nil || tt.text != "" && (err == nil || !strings.Contains(err.Error(), tt.text)) {
				t.Errorf("error is %v, want %q", err, tt.text)
			}
		})
	}
}

func TestAClientTakesNoOldTLS(t *testing.T) {
	authority := must(NewAuthority())(t)
	a, _ := keysOf(t, authority, "a", time.Hour)
	b, _ := keysOf(t, authority, "b", time.Hour)
	n := loopback(t)
	l := tls.NewListener(n, &tls.Config{Certificates: []tls.Certificate{b.w.get().cert}, MaxVersion: tls.VersionTLS12})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(); err == nil {
			c.(*tls.Conn).Handshake()
			c.Close()
		}
	}()
	_, err := readAll(connect(t, n, a, ClientOptions{}), packKey, 0, -1)
	if err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("error is %v", err)
	}
	l.Close()
	<-done
}

func TestEachConnectionIsMadeWithTheKeysOfItsTime(t *testing.T) {
	first, second := must(NewAuthority())(t), must(NewAuthority())(t)
	a, filesA := keysOf(t, first, "a", time.Hour)
	b, filesB := keysOf(t, first, "b", time.Hour)
	protocols(t, func(t *testing.T, http2 bool) {
		n := loopback(t)
		all := content(4 * piece)
		hold := make(chan struct{})
		src := &memory{blobs: map[string][]byte{packKey: all}, wrap: func(r io.Reader) io.Reader {
			return io.MultiReader(io.LimitReader(r, piece), gateReader{hold}, r)
		}}
		start(t, n, NewServer(src, b, ServerOptions{Allow: onlyTeam}))
		c := connect(t, n, a, ClientOptions{http2: http2})
		r, err := c.Open(t.Context(), packKey, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := io.ReadFull(r, make([]byte, piece)); err != nil {
			t.Fatal(err)
		}
		// While it runs, all files of both nodes change to those of another authority, first to where both are believed.
		both := append(first.PEM(), second.PEM()...)
		for _, dir := range []Files{filesA, filesB} {
			replace(t, dir.Authorities, both)
		}
		for _, dir := range []struct {
			node  string
			files Files
		}{{"a", filesA}, {"b", filesB}} {
			cert := must(second.Issue(dir.node, time.Hour))(t)
			replace(t, dir.files.Key, cert.Key)
			replace(t, dir.files.Certificate, cert.Certificate)
			replace(t, dir.files.Authorities, cert.Authority)
		}
		if size, err := c.Size(t.Context(), packKey); size != int64(len(all)) || err != nil {
			t.Errorf("a new request: %v", err)
		}
		close(hold)
		if rest, err := io.ReadAll(r); err != nil || !bytes.Equal(rest, all[piece:]) {
			t.Errorf("the transfer that ran: %v", err)
		}
		// Who has only the old keys is a stranger now.
		stranger, _ := keysOf(t, first, "a", time.Hour)
		if _, err := readAll(connect(t, n, stranger, ClientOptions{}), packKey, 0, -1); !errors.Is(err, ErrCertificate) {
			t.Errorf("a client with keys of before: %v", err)
		}
		// Back, for the other protocol.
		for node, files := range map[string]Files{"a": filesA, "b": filesB} {
			cert := must(first.Issue(node, time.Hour))(t)
			replace(t, files.Authorities, cert.Authority)
			replace(t, files.Key, cert.Key)
			replace(t, files.Certificate, cert.Certificate)
		}
	})
}

// gateReader has no bytes, and says so when the channel is closed.
type gateReader struct{ c <-chan struct{} }

func (g gateReader) Read([]byte) (int, error) {
	<-g.c
	return 0, io.EOF
}

func replace(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestFilesThatMakeNoKeysLeaveThoseOfBefore(t *testing.T) {
	authority := must(NewAuthority())(t)
	k, files := keysOf(t, authority, "a", time.Hour)
	before := k.w.get()
	for name, b := range map[string][]byte{
		files.Certificate: must(authority.Issue("a", time.Hour))(t).Certificate, // of another key
		files.Key:         []byte("junk"),
		files.Authorities: nil,
	} {
		good := must(os.ReadFile(name))(t)
		replace(t, name, b)
		if k.w.get() != before {
			t.Errorf("%s: other keys", name)
		}
		if _, err := OpenKeys(files, nil); err == nil {
			t.Errorf("%s: OpenKeys takes them", name)
		}
		replace(t, name, good)
	}
	if err := os.Remove(files.Key); err != nil {
		t.Fatal(err)
	}
	if k.w.get() != before {
		t.Error("a file is missing, and the keys are others")
	}
	// Another node's files do not make this node another.
	if _, err := must(authority.Issue("b", time.Hour))(t).Write(dirOf(files)); err != nil {
		t.Fatal(err)
	}
	if k.w.get() != before || k.Node() != "a" {
		t.Error("node a became another")
	}
	if _, err := must(authority.Issue("a", time.Hour))(t).Write(dirOf(files)); err != nil {
		t.Fatal(err)
	}
	if k.w.get() == before {
		t.Error("good keys are not read after bad ones")
	}
}

func dirOf(f Files) string { return strings.TrimSuffix(f.Key, "/"+keyFile) }

func TestTheTimeOfACertificateEndsDuringATransfer(t *testing.T) {
	for _, tt := range []struct {
		name         string
		mine, theirs time.Duration
		ours         string // what the error of the next request says
	}{
		{"the client's", time.Hour, 9 * time.Hour, "the time of our own"},
		{"the server's", 9 * time.Hour, time.Hour, "expired"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				authority := must(NewAuthority())(t)
				mine, files := keysOf(t, authority, "a", tt.mine)
				theirs, filesB := keysOf(t, authority, "b", tt.theirs)
				n := inMemory()
				all := content(4 * piece)
				hold := make(chan struct{})
				src := &memory{blobs: map[string][]byte{packKey: all}, wrap: func(r io.Reader) io.Reader {
					return io.MultiReader(io.LimitReader(r, piece), gateReader{hold}, r)
				}}
				stop := start(t, n, NewServer(src, theirs, ServerOptions{Allow: onlyTeam}))
				c := connect(t, n, mine, ClientOptions{})
				if size, err := c.Size(t.Context(), packKey); err != nil || size != int64(len(all)) {
					t.Fatal(err)
				}
				r, err := c.Open(t.Context(), packKey, 0, -1)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(r, make([]byte, piece)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Hour) // of the bubble's clock
				close(hold)
				if rest, err := io.ReadAll(r); err != nil || !bytes.Equal(rest, all[piece:]) {
					t.Errorf("the transfer that ran: %v", err)
				}
				r.Close()
				_, err = readAll(c, packKey, 0, -1)
				if !errors.Is(err, ErrCertificate) || !errors.Is(err, blob.ErrDenied) || !strings.Contains(err.Error(), tt.ours) {
					t.Errorf("the next: %v", err)
				}
				// With new ones it goes on, and nobody was restarted.
				must(must(authority.Issue("a", time.Hour))(t).Write(dirOf(files)))(t)
				must(must(authority.Issue("b", time.Hour))(t).Write(dirOf(filesB)))(t)
				if got, err := readAll(c, packKey, 0, -1); err != nil || !bytes.Equal(got, all) {
					t.Errorf("with new certificates: %v", err)
				}
				c.Close()
				stop()
			})
		})
	}
}

// A connection that lies idle while the certificate with which it was made runs out is not used again, and the caller does not notice.
func TestAnIdleConnectionOfAnOldCertificateIsReplaced(t *testing.T) {
	for _, renewed := range []string{"a", "b"} {
		t.Run(renewed, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				authority := must(NewAuthority())(t)
				life := map[string]time.Duration{"a": time.Hour, "b": time.Hour}
				life[renewed] = 10 * time.Second
				mine, files := keysOf(t, authority, "a", life["a"])
				theirs, filesB := keysOf(t, authority, "b", life["b"])
				n := inMemory()
				stop := start(t, n, NewServer(&memory{blobs: map[string][]byte{packKey: content(10)}}, theirs, ServerOptions{Allow: onlyTeam}))
				c := connect(t, n, mine, ClientOptions{})
				for range 2 {
					if _, err := c.Size(t.Context(), packKey); err != nil {
						t.Fatal(err)
					}
					must(must(authority.Issue(renewed, time.Hour))(t).Write(dirOf(map[string]Files{"a": files, "b": filesB}[renewed])))(t)
					time.Sleep(20 * time.Second)
				}
				c.Close()
				stop()
			})
		})
	}
}

func TestTheServerRefusesAnOldCertificateOnAConnectionThatExists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		authority := must(NewAuthority())(t)
		mine, _ := keysOf(t, authority, "a", 10*time.Second)
		theirs, _ := keysOf(t, authority, "b", time.Hour)
		n := inMemory()
		src := &memory{blobs: map[string][]byte{packKey: content(10)}}
		stop := start(t, n, NewServer(src, theirs, ServerOptions{Allow: onlyTeam}))
		conn := must(n.dial(t.Context(), "", ""))(t)
		c := tls.Client(conn, mine.w.get().client("b"))
		br := newReader(c)
		request := "GET /blob/" + packKey + " HTTP/1.1\r\nHost: b\r\n\r\n"
		for _, want := range []string{"200", "401"} {
			io.WriteString(c, request)
			line, err := br.ReadString('\n')
			if err != nil || !strings.Contains(line, want) {
				t.Errorf("%q, %v; want %s", line, err, want)
			}
			for line != "\r\n" && err == nil {
				line, err = br.ReadString('\n')
			}
			if want == "200" {
				io.ReadFull(br, make([]byte, 10))
			}
			time.Sleep(20 * time.Second)
		}
		c.Close()
		stop()
	})
}

func TestNamesInCertificates(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "node-1.rack_2": true, "A9": true, "": false, ".a": false, "-a": false, "a/b": false, "a b": false, "ä": false, "a\n": false,
		strings.Repeat("x", 128): true, strings.Repeat("x", 129): false,
	} {
		if err := CheckNode(name); (err == nil) != ok {
			t.Errorf("CheckNode(%q) is %v", name, err)
		}
	}
	if _, err := must(NewAuthority())(t).Issue("a/b", time.Hour); err == nil {
		t.Error("a certificate for a name that is none")
	}
}

func TestAnAuthorityIsTheSameAfterItWasWritten(t *testing.T) {
	dir := t.TempDir() + "/authority"
	first := must(NewAuthority())(t)
	if err := first.Write(dir); err != nil {
		t.Fatal(err)
	}
	if err := first.Write(dir); err == nil {
		t.Error("an authority was replaced")
	}
	second := must(OpenAuthority(dir))(t)
	a, _ := keysOf(t, first, "a", time.Hour)
	b, files := keysOf(t, second, "b", time.Hour)
	if err := a.w.get().verifyServer(mustChain(b), "b"); err != nil {
		t.Error(err)
	}
	if info := must(os.Stat(files.Key))(t); info.Mode().Perm()&0o077 != 0 {
		t.Errorf("others may read the key: %v", info.Mode())
	}
	if info := must(os.Stat(dir + "/" + authorityKeyFile))(t); info.Mode().Perm()&0o077 != 0 {
		t.Errorf("others may read the authority's key: %v", info.Mode())
	}
}

func TestServeEndsWithItsContextAndTakesItsTransfersWithIt(t *testing.T) {
	authority := must(NewAuthority())(t)
	a, _ := keysOf(t, authority, "a", time.Hour)
	b, _ := keysOf(t, authority, "b", time.Hour)
	n := loopback(t)
	src := &memory{blobs: map[string][]byte{packKey: content(64 << 20)}}
	stop := start(t, n, NewServer(src, b, ServerOptions{Allow: onlyTeam}))
	r, err := connect(t, n, a, ClientOptions{}).Open(context.Background(), packKey, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	stop()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error is %v", err)
	}
	if c, err := net.Dial("tcp", n.Addr().String()); err == nil {
		c.Close()
		t.Error("somebody listens still")
	}
}
