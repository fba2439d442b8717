package lazypages

import (
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPageServerSocketMayBeInherited(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	there := os.NewFile(uintptr(pair[1]), "page server")
	defer there.Close()
	a := arguments{psSocket: pair[0], address: "host"}
	conn, host, err := a.connect(t.Context())
	if err != nil || host != "host" {
		t.Fatalf("host %q, %v", host, err)
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Error(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	// The descriptor was taken over: nothing keeps the connection open.
	if got, err := io.ReadAll(there); string(got) != "hello" || err != nil {
		t.Errorf("the page server gets %q, %v", got, err)
	}
	if _, _, err := a.connect(t.Context()); err == nil {
		t.Error("a closed descriptor is taken for a connection")
	}
}

func TestCertificatesHaveToBeThere(t *testing.T) {
	missing := tlsArguments{on: true, cert: "/nowhere/cert.pem", key: "/nowhere/key.pem"}
	if _, err := missing.config("host"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
}
