package lazypages_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"thaw/internal/testenv"
)

// An authority signs certificates, in files.
type authority struct {
	t    *testing.T
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.key = a.newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	a.cert = template
	a.cert = a.sign("ca.pem", template, &a.key.PublicKey)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *authority) sign(name string, template *x509.Certificate, key *ecdsa.PublicKey) *x509.Certificate {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name, "CERTIFICATE", der)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	data := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(a.file(name), data, 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// issue makes a key and a certificate for an address, and returns CRIU's options for them.
func (a *authority) issue(name string, serial int64, address string) []string {
	a.t.Helper()
	key := a.newKey()
	a.sign(name+".pem", &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.ParseIP(address)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, &key.PublicKey)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".key", "PRIVATE KEY", der)
	return []string{"--tls", "--tls-cacert", a.file("ca.pem"), "--tls-cert", a.file(name + ".pem"), "--tls-key", a.file(name + ".key")}
}

// revoke writes a list that revokes the certificate with the serial number.
func (a *authority) revoke(serial int64) {
	a.t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(serial), RevocationTime: time.Now().Add(-time.Hour)}},
	}, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write("crl.pem", "X509 CRL", der)
}

func TestPageServerOverTLS(t *testing.T) {
	needPageServer(t)
	tg, dir := freeze(t, "plain")
	a, port := newAuthority(t), freePort(t)
	ps := exec.Command(testenv.CRIU(t), append([]string{"page-server", "--lazy-pages", "-D", dir, "--address", "127.0.0.1", "--port", port,
		"-v4", "-o", "page-server.log", "--status-fd", "3"}, a.issue("server", 2, "127.0.0.1")...)...)
	startCRIU(t, ps)
	work := t.TempDir()
	s := start(t, append([]string{"-D", dir, "-W", work, "--page-server", "--address", "127.0.0.1", "--port", port},
		a.issue("client", 3, "127.0.0.1")...)...)
	restoreAndCheck(t, s, tg, dir, work, "root")
	checkEnd(t, ps, filepath.Join(dir, "page-server.log"))
}

func TestPageServerThatIsNotTrusted(t *testing.T) {
	needPageServer(t)
	_, dir := freeze(t, "plain")
	for _, tc := range []struct {
		name  string
		setUp func(a *authority) (server, client []string)
		says  string
	}{
		{"another host's certificate", func(a *authority) (server, client []string) {
			return a.issue("server", 2, "127.0.0.9"), a.issue("client", 3, "127.0.0.1")
		}, "certificate is valid for 127.0.0.9, not 127.0.0.1"},
		{"another authority", func(a *authority) (server, client []string) {
			return newAuthority(a.t).issue("server", 2, "127.0.0.1"), a.issue("client", 3, "127.0.0.1")
		}, "unknown authority"},
		{"a revoked certificate", func(a *authority) (server, client []string) {
			a.revoke(2)
			return a.issue("server", 2, "127.0.0.1"), append(a.issue("client", 3, "127.0.0.1"), "--tls-cacrl", a.file("crl.pem"))
		}, "is revoked"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, port := newAuthority(t), freePort(t)
			server, client := tc.setUp(a)
			ps := exec.Command(testenv.CRIU(t), append([]string{"page-server", "--lazy-pages", "-D", dir, "--address", "127.0.0.1", "--port", port,
				"-v4", "-o", "page-server.log", "--status-fd", "3"}, server...)...)
			startCRIU(t, ps)
			s := command(t, append([]string{"-D", dir, "-W", t.TempDir(), "--page-server", "--address", "127.0.0.1", "--port", port,
				"--no-default-config"}, client...)...)
			if err := s.cmd.Run(); err == nil || !strings.Contains(s.stderr.String(), tc.says) {
				t.Errorf("%v, want it to say %q\n%s", err, tc.says, &s.stderr)
			}
		})
	}
}
