package lazypages

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
)

// Where CRIU looks for certificates and keys that it is not told about.
const (
	defaultCACert = "/etc/pki/CA/cacert.pem"
	defaultCACRL  = "/etc/pki/CA/cacrl.pem"
	defaultCert   = "/etc/pki/criu/cert.pem"
	defaultKey    = "/etc/pki/criu/private/key.pem"
)

// dial connects to the page server.
func (a *arguments) dial(ctx context.Context) (net.Conn, error) {
	conn, host, err := a.connect(ctx)
	if err != nil || !a.tls.on {
		return conn, err
	}
	config, err := a.tls.config(host)
	if err != nil {
		conn.Close()
		return nil, err
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// connect returns a plain connection, and the name of the host that its certificate has to have.
func (a *arguments) connect(ctx context.Context) (net.Conn, string, error) {
	host := a.address
	if host == "" {
		host = "localhost"
	}
	if a.psSocket < 0 {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(a.port)))
		return conn, host, err
	}
	f := os.NewFile(uintptr(a.psSocket), "page server socket")
	if f == nil {
		return nil, "", fmt.Errorf("%w: --ps-socket %d is no descriptor", errUsage, a.psSocket)
	}
	defer f.Close()
	conn, err := net.FileConn(f)
	return conn, host, err
}

// config reads certificates and keys. CRIU's page server wants a certificate of its client, too.
func (t *tlsArguments) config(host string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(orDefault(t.cert, defaultCert), orDefault(t.key, defaultKey))
	if err != nil {
		return nil, fmt.Errorf("load certificate: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	ca, err := os.ReadFile(orDefault(t.caCert, defaultCACert))
	if err == nil && !roots.AppendCertsFromPEM(ca) {
		err = errors.New("there is no certificate in it")
	}
	if err != nil && (t.caCert != "" || !errors.Is(err, fs.ErrNotExist)) {
		return nil, fmt.Errorf("load certificate of the authority %s: %w", t.caCert, err)
	}
	revoked, err := t.revoked()
	if err != nil {
		return nil, err
	}
	verify := func(cs tls.ConnectionState) error { return verifyServer(cs, roots, host, t.anyName, revoked) }
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS12,
		ServerName:   host,
		// The certificate is verified all the same, by VerifyConnection: the library has no way to leave out the
		// name alone.
		InsecureSkipVerify: true,
		VerifyConnection:   verify,
	}, nil
}

// revoked reads the list of revoked certificates and returns their serial numbers.
func (t *tlsArguments) revoked() (map[string]bool, error) {
	name := orDefault(t.caCRL, defaultCACRL)
	data, err := os.ReadFile(name)
	if t.caCRL == "" && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load revocation list: %w", err)
	}
	list, err := x509.ParseRevocationList(decodePEM(data))
	if err != nil {
		return nil, fmt.Errorf("load revocation list %s: %w", name, err)
	}
	revoked := make(map[string]bool)
	for _, e := range list.RevokedCertificateEntries {
		revoked[e.SerialNumber.String()] = true
	}
	return revoked, nil
}

func verifyServer(cs tls.ConnectionState, roots *x509.CertPool, host string, anyName bool, revoked map[string]bool) error {
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	if !anyName {
		opts.DNSName = host
	}
	for _, c := range cs.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	leaf := cs.PeerCertificates[0]
	if revoked[leaf.SerialNumber.String()] {
		return fmt.Errorf("the certificate of the page server, serial number %v, is revoked", leaf.SerialNumber)
	}
	_, err := leaf.Verify(opts)
	return err
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// decodePEM returns the first block of a PEM file, or the data as it is.
func decodePEM(data []byte) []byte {
	if block, _ := pem.Decode(data); block != nil {
		return block.Bytes
	}
	return data
}
