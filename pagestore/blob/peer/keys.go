package peer

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// ErrCertificate: a certificate does not hold: theirs for us, or ours for them. It comes together with blob.ErrDenied.
var ErrCertificate = errors.New("certificate is not accepted")

// Files are the PEM files with which a node says who it is, and knows others. They may change at any time, each best by a rename.
type Files struct {
	Certificate string // of the node, then those of intermediate authorities
	Key         string // of that certificate
	Authorities string // whose nodes are believed
}

// Keys are a node's certificate and key, and the authorities that it believes. They follow their files: each connection is made with what
// the files hold then, and connections that exist go on. Safe for concurrent use.
type Keys struct {
	files Files
	node  string
	w     *watched[*material]
}

// material is what the files held at one moment. Immutable.
type material struct {
	cert        tls.Certificate
	authorities *x509.CertPool
}

// OpenKeys reads the files. log, if not nil, is told when changed files are of no use; those of before hold then.
func OpenKeys(files Files, log *slog.Logger) (*Keys, error) {
	k := &Keys{files: files}
	var err error
	k.w, err = watch([]string{files.Certificate, files.Key, files.Authorities}, log, k.parse)
	if err != nil {
		return nil, fmt.Errorf("read the keys of this node: %w", err)
	}
	return k, nil
}

// Node returns the name of this node. It is that of the first certificate: files that change cannot make a node another.
func (k *Keys) Node() string { return k.node }

func (k *Keys) parse(content [][]byte) (*material, error) {
	cert, err := tls.X509KeyPair(content[0], content[1])
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", k.files.Certificate, k.files.Key, err)
	}
	if cert.Leaf == nil {
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return nil, fmt.Errorf("%s: %w", k.files.Certificate, err)
		}
	}
	name, err := NodeOf(cert.Leaf)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.files.Certificate, err)
	}
	if k.node != "" && name != k.node {
		return nil, fmt.Errorf("%s is for node %s now, and this is %s", k.files.Certificate, name, k.node)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content[2]) {
		return nil, fmt.Errorf("%s has no certificate in it", k.files.Authorities)
	}
	k.node = name
	return &material{cert: cert, authorities: pool}, nil
}

// common is what both ends' configurations have. There are no session tickets: with them a connection could rest on a certificate
// that does not hold any more. Records are full from the first one on: the small
// ones that crypto/tls begins with help pages to be shown early.
func (m *material) common() *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
		Certificates:                []tls.Certificate{m.cert},
	}
}

// server returns the configuration of a server, with which each connection gets the keys of its time. accepted, if not nil, is called
// with the connection whose client is known.
func (k *Keys) server(accepted func(chi *tls.ClientHelloInfo)) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(chi *tls.ClientHelloInfo) (*tls.Config, error) {
			m := k.w.get()
			c := m.common()
			c.NextProtos = []string{"h2", "http/1.1"}
			c.ClientAuth = tls.RequireAndVerifyClientCert
			c.ClientCAs = m.authorities
			c.VerifyConnection = func(cs tls.ConnectionState) error {
				_, err := NodeOf(cs.PeerCertificates[0])
				if err == nil && accepted != nil {
					accepted(chi)
				}
				return err
			}
			return c, nil
		},
	}
}

// client returns the configuration of connections to the node of that name.
func (m *material) client(node string) *tls.Config {
	c := m.common()
	c.InsecureSkipVerify = true // of the host's name; the chain and the node's name are verified here
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := m.verifyServer(cs.PeerCertificates, node); err != nil {
			return fmt.Errorf("%w: %w", ErrCertificate, err)
		}
		return nil
	}
	// Without this a client whose authorities are not among those that the server names would show no certificate, and the server's answer be misleading.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &m.cert, nil }
	return c
}

func (m *material) verifyServer(chain []*x509.Certificate, node string) error {
	if len(chain) == 0 {
		return errors.New("none was shown")
	}
	opts := x509.VerifyOptions{
		Roots: m.authorities, Intermediates: x509.NewCertPool(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, CurrentTime: time.Now(),
	}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return err
	}
	name, err := NodeOf(chain[0])
	if err != nil {
		return err
	}
	if name != node {
		return fmt.Errorf("it is that of node %s, and we asked for %s", name, node)
	}
	return nil
}

// inTime says whether a certificate holds at this moment, with which connections go on after it has ended.
func inTime(c *x509.Certificate) bool { return !time.Now().After(c.NotAfter) }
