package peer

import (
	"path"
	"strings"
	"testing"
)

func FuzzRequest(f *testing.F) {
	for _, seed := range [][2]string{
		{"/blob/v1/team/packs/abc", "bytes=0-99"}, {"/blob/v1/team/packs/abc", "bytes=5-"}, {"/blob/v1/../x", "bytes=-5"},
		{"/blob/", "bytes=5-4"}, {"/blob/v1//x", "bytes=0-1,3-4"}, {"", ""}, {"/blob/v1/a/.b", "bytes=18446744073709551615-"},
		{"/blob/v1/a/b@c=d", "bytes 0-9/10"}, {"/blob/v1/a/b", "bytes */0"},
	} {
		f.Add(seed[0], seed[1], int64(100))
	}
	f.Fuzz(func(t *testing.T, p, header string, size int64) {
		if key, namespace, ok := parsePath(p); ok {
			if prefix+key != p || path.Clean(p) != p || !strings.HasPrefix(key, "v1/"+namespace+"/") || namespace == "" || strings.Contains(namespace, "/") {
				t.Errorf("%q is key %q in namespace %q", p, key, namespace)
			}
		}
		size = max(size, 0)
		if s, err := parseSpan(header); err == nil {
			if s.off < 0 || s.n == 0 || s.n < -1 {
				t.Errorf("%q is %+v", header, s)
			}
			if part, ok := s.within(size); ok && (part.off != s.off || part.n <= 0 || part.off+part.n > size || s.n > 0 && part.n > s.n) {
				t.Errorf("%q of %d bytes is %+v", header, size, part)
			} else if ok {
				if got, whole, ok := parseContentRange(part.contentRange(size)); size <= maxNumber && (!ok || got != part || whole != size) {
					t.Errorf("%+v of %d is %+v of %d after it was sent", part, size, got, whole)
				}
			}
			if header != "" {
				if again, err := parseSpan(s.header()); err != nil || again != s {
					t.Errorf("%q is %+v, and after it was sent %+v, %v", header, s, again, err)
				}
			}
		}
		if s, size, ok := parseContentRange(header); ok && (s.off < 0 || s.n < 0 || s.off+s.n > size) {
			t.Errorf("%q is %+v of %d", header, s, size)
		}
	})
}

func FuzzMembers(f *testing.F) {
	f.Add([]byte(`{"namespaces": {"team": ["a", "*"]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMembers(b)
		if err != nil && m != nil {
			t.Error("both members and an error")
		}
		for namespace := range m {
			if !validNamespace(namespace) {
				t.Errorf("namespace %q", namespace)
			}
		}
	})
}
