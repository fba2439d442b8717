package fdpass

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"thaw/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// connect returns both ends of a connection.
func connect(t *testing.T) (receiver, peer *net.UnixConn) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range pair {
		file := os.NewFile(uintptr(fd), "socket")
		conn, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conns[i] = conn.(*net.UnixConn)
	}
	return conns[0], conns[1]
}

// send sends data with n descriptors of a file that tells who still holds it.
func send(t *testing.T, peer *net.UnixConn, data []byte, n int) {
	t.Helper()
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var oob []byte
	if n > 0 {
		oob = unix.UnixRights(slices.Repeat([]int{int(file.Fd())}, n)...)
	}
	if _, _, err := peer.WriteMsgUnix(data, oob, nil); err != nil {
		t.Fatal(err)
	}
}

// countOpen returns how many descriptors this process has open.
func countOpen(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestReceiveTakesExactlyTheExpectedDescriptors(t *testing.T) {
	for _, tt := range []struct {
		name       string
		sent, want int
	}{
		{"none of none", 0, 0},
		{"one of one", 1, 1},
		{"two of two", 2, 2},
		{"none of one", 0, 1},
		{"one of none", 1, 0},
		{"two of one", 2, 1},
		{"as many as a peer can attach", 253, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			receiver, peer := connect(t)
			before := countOpen(t)
			send(t, peer, []byte{42}, tt.sent)
			var p [8]byte
			m, err := Receive(receiver, p[:], tt.want)
			if tt.sent != tt.want {
				var count *CountError
				if !errors.As(err, &count) || *count != (CountError{tt.sent, tt.want}) {
					t.Errorf("got error %v", err)
				}
				if after := countOpen(t); after != before {
					t.Errorf("%d descriptors are left open", after-before)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer closeAll(m.FDs)
			if m.N != 1 || p[0] != 42 || len(m.FDs) != tt.want {
				t.Errorf("got %d bytes, first %d, %d descriptors", m.N, p[0], len(m.FDs))
			}
			for _, fd := range m.FDs {
				if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("descriptor flags %#x, error %v; want close-on-exec", flags, err)
				}
			}
		})
	}
}

func TestReceiveReportsCredentials(t *testing.T) {
	receiver, peer := connect(t)
	if err := PassCred(receiver); err != nil {
		t.Fatal(err)
	}
	send(t, peer, []byte{1}, 1)
	var p [1]byte
	m, err := Receive(receiver, p[:], 1)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(m.FDs)
	want := &unix.Ucred{Pid: int32(os.Getpid()), Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())}
	if diff := cmp.Diff(want, m.Cred); diff != "" {
		t.Errorf("credentials (-want +got):\n%s", diff)
	}
}

func TestReceiveWithoutPassCredHasNoCredentials(t *testing.T) {
	receiver, peer := connect(t)
	send(t, peer, []byte{1}, 0)
	m, err := Receive(receiver, make([]byte, 1), 0)
	if err != nil || m.Cred != nil {
		t.Errorf("got credentials %v, error %v", m.Cred, err)
	}
}

func TestDescriptorsThatAreCutOffAreAnError(t *testing.T) {
	receiver, peer := connect(t)
	before := countOpen(t)
	send(t, peer, []byte{1}, 3)
	_, err := receive(receiver, make([]byte, 1), 2, make([]byte, unix.CmsgSpace(2*intSize)))
	if !errors.Is(err, ErrTruncated) {
		t.Errorf("got %v, want ErrTruncated", err)
	}
	if after := countOpen(t); after != before {
		t.Errorf("%d descriptors are left open", after-before)
	}
}

func TestFullTableOfDescriptorsIsAnError(t *testing.T) {
	receiver, peer := connect(t)
	send(t, peer, []byte{1}, 1)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	_, receiveErr := Receive(receiver, make([]byte, 1), 1)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(receiveErr, ErrTruncated) {
		t.Errorf("got %v, want ErrTruncated", receiveErr)
	}
}

func TestPeerThatClosesEarly(t *testing.T) {
	for _, tt := range []struct {
		name string
		sent int
		want error
	}{
		{"before the first byte", 0, io.EOF},
		{"in the middle", 2, io.ErrUnexpectedEOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			receiver, peer := connect(t)
			before := countOpen(t)
			if tt.sent > 0 {
				send(t, peer, make([]byte, tt.sent), 1)
			}
			peer.Close()
			if _, err := ReceiveFull(receiver, make([]byte, 4), 1); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if after := countOpen(t); after != before-1 { // the peer's end
				t.Errorf("%d descriptors are left open", after-before+1)
			}
		})
	}
	t.Run("for a receiver of single pieces", func(t *testing.T) {
		receiver, peer := connect(t)
		peer.Close()
		if _, err := Receive(receiver, make([]byte, 4), 1); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want EOF", err)
		}
	})
}

func TestReceiveFullJoinsPieces(t *testing.T) {
	receiver, peer := connect(t)
	send(t, peer, []byte("th"), 0)
	send(t, peer, []byte("a"), 1)
	send(t, peer, []byte("w!"), 0)
	p := make([]byte, 4)
	m, err := ReceiveFull(receiver, p, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(m.FDs)
	if m.N != 4 || !bytes.Equal(p, []byte("thaw")) || len(m.FDs) != 1 {
		t.Errorf("got %q (%d bytes), %d descriptors", p, m.N, len(m.FDs))
	}
	if _, err := Receive(receiver, p, 0); err != nil || p[0] != '!' {
		t.Errorf("what follows is lost: %q, %v", p, err)
	}
}

func TestReceiveFullStopsAtTheFirstDescriptorTooMany(t *testing.T) {
	receiver, peer := connect(t)
	before := countOpen(t)
	send(t, peer, []byte{1}, 1)
	send(t, peer, []byte{2}, 1)
	send(t, peer, []byte{3}, 1)
	var count *CountError
	if _, err := ReceiveFull(receiver, make([]byte, 3), 1); !errors.As(err, &count) || count.Got != 2 {
		t.Errorf("got %v, want an error at the second descriptor", err)
	}
	if after := countOpen(t); after != before {
		t.Errorf("%d descriptors are left open", after-before)
	}
}

func TestReceiveKeepsTheDeadline(t *testing.T) {
	receiver, _ := connect(t)
	if err := receiver.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := Receive(receiver, make([]byte, 1), 0); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want a deadline error", err)
	}
}

func TestUnexpectedAttachmentIsAnError(t *testing.T) {
	receiver, peer := connect(t)
	raw, err := receiver.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const soPasspidfd = 76 // SO_PASSPIDFD, since Linux 6.5
	var optErr error
	err = raw.Control(func(fd uintptr) { optErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, soPasspidfd, 1) })
	if errors.Is(optErr, unix.ENOPROTOOPT) {
		t.Skip("needs Linux 6.5")
	}
	if err := errors.Join(err, optErr); err != nil {
		t.Fatal(err)
	}
	before := countOpen(t)
	send(t, peer, []byte{1}, 1)
	if _, err := Receive(receiver, make([]byte, 1), 1); !errors.Is(err, ErrUnexpected) {
		t.Errorf("got %v, want ErrUnexpected", err)
	}
	if after := countOpen(t); after != before {
		t.Errorf("%d descriptors are left open", after-before)
	}
}

// FuzzParse gives the parser control messages that no kernel sends.
func FuzzParse(f *testing.F) {
	credentials := unix.UnixCredentials(&unix.Ucred{Pid: 1, Uid: 2, Gid: 3})
	f.Add(unix.UnixRights(1, 2))
	f.Add(credentials)
	f.Add(append(unix.UnixRights(7), credentials...))
	f.Fuzz(func(t *testing.T, oob []byte) {
		m, err := parse(oob)
		if err == nil && len(m.FDs)*intSize > len(oob) {
			t.Errorf("%d descriptors in %d bytes", len(m.FDs), len(oob))
		}
		if err == nil && len(oob) > unix.CmsgLen(0) && len(m.FDs) == 0 && m.Cred == nil {
			header, data, _, _ := unix.ParseOneSocketControlMessage(oob)
			if header.Type != unix.SCM_RIGHTS || len(data) != 0 {
				t.Errorf("%d bytes mean nothing, and that is no error", len(oob))
			}
		}
	})
}
