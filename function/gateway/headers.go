package gateway

import (
	"net/http"
	"net/url"
	"strings"
)

// hopHeaders concern one connection, and are not passed on.
var hopHeaders = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Authorization": true, "Proxy-Connection": true, "Te": true,
	"Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "Content-Length": true,
}

// endToEnd returns the headers that are passed on: not those that concern one connection, nor those that its Connection header names.
func endToEnd(headers [][2]string) (out [][2]string) {
	named := make(map[string]bool)
	for _, kv := range headers {
		if http.CanonicalHeaderKey(kv[0]) != "Connection" {
			continue
		}
		for name := range strings.SplitSeq(kv[1], ",") {
			named[http.CanonicalHeaderKey(strings.TrimSpace(name))] = true
		}
	}
	for _, kv := range headers {
		if name := http.CanonicalHeaderKey(kv[0]); !hopHeaders[name] && !named[name] {
			out = append(out, [2]string{name, kv[1]})
		}
	}
	return out
}

// withoutParameters returns a query as it came, but for the object's parameters, which are not the endpoint's.
func withoutParameters(query string) string {
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		key, _, _ := strings.Cut(part, "=")
		if name, err := url.QueryUnescape(key); err != nil || name != "parameters" {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "&")
}
