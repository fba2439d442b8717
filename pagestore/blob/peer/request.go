package peer

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"thaw/pagestore/blob"
)

// prefix begins the path of all blobs; their key follows.
const prefix = "/blob/"

// parsePath returns the key that the path of a URL names, and the namespace which that key is in.
func parsePath(path string) (key, namespace string, ok bool) {
	key, ok = strings.CutPrefix(path, prefix)
	if !ok || blob.ValidateKey(key) != nil {
		return "", "", false
	}
	namespace, ok = namespaceOf(key)
	return key, namespace, ok
}

// namespaceOf returns the second part of a key, v1/NAMESPACE/..., without which nobody can be asked whether it may be read.
func namespaceOf(key string) (string, bool) {
	version, rest, _ := strings.Cut(key, "/")
	namespace, rest, more := strings.Cut(rest, "/")
	return namespace, version == "v1" && more && rest != ""
}

// validNamespace reports whether keys can have that namespace.
func validNamespace(namespace string) bool {
	return blob.ValidateKey(namespace) == nil && !strings.Contains(namespace, "/")
}

// span is a range of bytes as a request names it: n < 0 stands for all that follow.
type span struct{ off, n int64 }

var errSpan = errors.New("the range is not bytes=FIRST-LAST or bytes=FIRST-")

// parseSpan reads the one Range header that is served; "" is the whole blob.
func parseSpan(header string) (span, error) {
	if header == "" {
		return span{0, -1}, nil
	}
	r, ok := strings.CutPrefix(header, "bytes=")
	first, last, dash := strings.Cut(r, "-")
	off, okFirst := parseNumber(first)
	if !ok || !dash || !okFirst {
		return span{}, errSpan
	}
	if last == "" {
		return span{off, -1}, nil
	}
	end, okLast := parseNumber(last)
	if !okLast || end < off {
		return span{}, errSpan
	}
	return span{off, end - off + 1}, nil
}

// maxNumber keeps sums of two numbers from a request within an int64.
const maxNumber = 1 << 60

// parseNumber reads decimal digits, and nothing else.
func parseNumber(s string) (int64, bool) {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n <= maxNumber
}

// within cuts the span to a blob of size bytes. There is none of it left if ok is false.
func (s span) within(size int64) (_ span, ok bool) {
	if s.off >= size {
		return span{}, false
	}
	if s.n < 0 || s.n > size-s.off {
		s.n = size - s.off
	}
	return s, true
}

// header is the Range header that asks for the span.
func (s span) header() string {
	if s.n < 0 {
		return fmt.Sprintf("bytes=%d-", s.off)
	}
	return fmt.Sprintf("bytes=%d-%d", s.off, s.off+s.n-1)
}

// contentRange is the header of the answer that carries the span of a blob of size bytes.
func (s span) contentRange(size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", s.off, s.off+s.n-1, size)
}

// parseContentRange reads the Content-Range header of an answer: the span that it carries, and the size of the whole. Of an answer that says that there
// is no such range ("bytes */SIZE") the span is zero.
func parseContentRange(header string) (s span, size int64, ok bool) {
	r, ok := strings.CutPrefix(header, "bytes ")
	r, whole, slash := strings.Cut(r, "/")
	size, okSize := parseNumber(whole)
	if !ok || !slash || !okSize {
		return span{}, 0, false
	}
	if r == "*" {
		return span{}, size, true
	}
	first, last, _ := strings.Cut(r, "-")
	off, okFirst := parseNumber(first)
	end, okLast := parseNumber(last)
	if !okFirst || !okLast || end < off || end >= size {
		return span{}, 0, false
	}
	return span{off, end - off + 1}, size, true
}
