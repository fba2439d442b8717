// Package objectstore keeps blobs in an object store: S3, or what speaks its protocol.
//
// [Open] takes a URL:
//
//	s3://BUCKET[/PREFIX]?region=R                  Amazon's
//	s3://BUCKET[/PREFIX]?endpoint=http://HOST:PORT  any other: versitygw, which the tests run; SeaweedFS passed them once (November 2026)
//	gs://BUCKET[/PREFIX]                           Google's, by the same protocol and with keys for it (HMAC); not tested
//	file:///FOLDER                                 a [blob.Dir]
//
// A blob is the object PREFIX/KEY. It is put by one request, whatever its size, up to the 5 GiB that S3 allows; so it appears as a whole, and a half
// one leaves nothing that would have to be cleaned up.
//
// # Who is asked for credentials
//
// The library's own chain, and nothing else: the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), the shared credentials file
// (AWS_SHARED_CREDENTIALS_FILE, AWS_PROFILE), then the services of the cloud: web identity tokens, containers, instances. Where none has any, requests are not
// signed. A URL with a password in it is refused.
//
// # What Create promises
//
// Create sends If-None-Match. Stores that do not know it put the object all the same, so the first Create of a process asks for a proof: it puts PREFIX/.thaw-exclusive,
// twice if need be, and expects to be refused. Where it is not, Exclusive is false, and Create looks first whether the object exists. What the store
// is known to do can be said in the URL, exclusive=yes or exclusive=no, and nothing is asked.
//
// # Retries
//
// None: each call is one request (but for a proof, a look, and the region of a bucket). Whoever calls knows what a second try is worth, and whom else to ask. A response
// that stalls ends with the context.
package objectstore
