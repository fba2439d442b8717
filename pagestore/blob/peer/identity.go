package peer

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// maxName is how many bytes the name of a node may have.
const maxName = 128

// CheckNode says what is wrong with a node's name: 1 to 128 ASCII letters, digits, '.', '-' and '_', the first one a letter or a digit.
func CheckNode(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("the name of a node has 1 to %d bytes, not %d", maxName, len(name))
	}
	for i, c := range []byte(name) {
		if !isAlphanumeric(c) && (i == 0 || !strings.ContainsRune(".-_", rune(c))) {
			return fmt.Errorf("%q cannot be the name of a node: letters, digits, '.', '-' and '_', a letter or digit first", name)
		}
	}
	return nil
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// nodeURI is the name of a node as its certificate says it.
func nodeURI(name string) *url.URL { return &url.URL{Scheme: "thaw", Host: "node", Path: "/" + name} }

// NodeOf returns the name of the node that a certificate is for: that of its one URI thaw://node/NAME, or its one DNS name if it has no such URI.
func NodeOf(cert *x509.Certificate) (string, error) {
	var names []string
	for _, uri := range cert.URIs {
		if name, ok := strings.CutPrefix(uri.String(), "thaw://node/"); ok {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		names = cert.DNSNames
	}
	if len(names) != 1 {
		return "", errors.New("a node's certificate has one URI thaw://node/NAME, or none and one DNS name, in its subject alternative names")
	}
	return names[0], CheckNode(names[0])
}
