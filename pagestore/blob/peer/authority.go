package peer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"thaw/internal/durable"
)

// Authority makes certificates for nodes: for tests, demonstrations and small fleets. A large one has its own authority, which need do no more than put the URI
// thaw://node/NAME into certificates. Safe for concurrent use.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// Certificate is a node's certificate and key, and the authority's certificate, in PEM.
type Certificate struct{ Certificate, Key, Authority []byte }

// Names of the files that Write makes.
const (
	certificateFile  = "node.crt"
	keyFile          = "node.key"
	authoritiesFile  = "authorities.crt"
	authorityFile    = "authority.crt"
	authorityKeyFile = "authority.key"
)

// authorityYears is how long a new authority's certificate holds.
const authorityYears = 10

// skew is how long before it was made a certificate holds already, since clocks differ.
const skew = time.Hour

// NewAuthority makes an authority with a new key.
func NewAuthority() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "thaw authority"},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.AddDate(authorityYears, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	cert, err := sign(template, template, key.Public(), key)
	return &Authority{cert, key}, err
}

// OpenAuthority reads what [Authority.Write] wrote to a folder.
func OpenAuthority(dir string) (*Authority, error) {
	var blocks [2]*pem.Block
	for i, name := range []string{authorityFile, authorityKeyFile} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if blocks[i], _ = pem.Decode(b); blocks[i] == nil {
			return nil, fmt.Errorf("%s is not PEM", filepath.Join(dir, name))
		}
	}
	cert, err := x509.ParseCertificate(blocks[0].Bytes)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(blocks[1].Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("the authority's key cannot sign")
	}
	return &Authority{cert, signer}, nil
}

// Write writes the authority's certificate, and its key for the owner's eyes only, to a folder, which it makes if it has to. An authority that is there
// is not replaced.
func (a *Authority) Write(dir string) error {
	key, err := encodeKey(a.key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := durable.Write(durable.Disk, filepath.Join(dir, authorityKeyFile), key); err != nil {
		return err
	}
	return durable.Write(durable.Disk, filepath.Join(dir, authorityFile), a.PEM())
}

// PEM returns the authority's certificate: what nodes believe.
func (a *Authority) PEM() []byte { return encodeCertificate(a.cert) }

// Issue makes a new key, and a certificate for it and the node of that name, which holds from now on for so long.
func (a *Authority) Issue(node string, life time.Duration) (*Certificate, error) {
	if err := CheckNode(node); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	cert, err := sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: node},
		URIs:        []*url.URL{nodeURI(node)},
		NotBefore:   now.Add(-skew),
		NotAfter:    now.Add(life),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	b, err := encodeKey(key)
	return &Certificate{Certificate: encodeCertificate(cert), Key: b, Authority: a.PEM()}, err
}

// Write writes the three files to a folder, which it makes if it has to, each in one step, and returns their names. Files that are there are replaced: a
// program that has them open uses the new ones from its next connection on.
func (c *Certificate) Write(dir string) (Files, error) {
	files := Files{
		Certificate: filepath.Join(dir, certificateFile),
		Key:         filepath.Join(dir, keyFile),
		Authorities: filepath.Join(dir, authoritiesFile),
	}
	err := os.MkdirAll(dir, 0o700)
	for _, f := range []struct {
		name    string
		content []byte
	}{{files.Authorities, c.Authority}, {files.Key, c.Key}, {files.Certificate, c.Certificate}} {
		if err == nil {
			err = durable.Replace(durable.Disk, f.name, f.content)
		}
	}
	return files, err
}

func sign(template, parent *x509.Certificate, public, signer any) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial.Add(serial, big.NewInt(1))
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func encodeCertificate(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func encodeKey(key any) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}
