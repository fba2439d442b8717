package objectstore_test

import (
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"thaw/pagestore/blob/blobtest"
)

func TestTheCertificateOfAStoreIsChecked(t *testing.T) {
	f := newFake(t)
	f.server.Close()
	f.server = httptest.NewUnstartedServer(f)
	f.server.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that fail
	f.server.StartTLS()
	t.Cleanup(f.server.Close)
	if err := f.bucket(t).Replace(t.Context(), "key", strings.NewReader("x"), 1); !is(err, nil) {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
	if got := f.seen(); len(got) != 0 {
		t.Errorf("it was asked %q", got)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file)
	b := f.bucket(t)
	for _, content := range []string{"some content", ""} {
		if err := b.Replace(t.Context(), "key", strings.NewReader(content), int64(len(content))); err != nil {
			t.Fatal(err)
		}
		if got, err := blobtest.Read(t.Context(), b, "key", 0, -1); err != nil || string(got) != content {
			t.Errorf("read %q, %v", got, err)
		}
	}
}
