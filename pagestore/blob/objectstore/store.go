package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"thaw/pagestore/blob"
)

// maxObject is what S3 takes in one request, in bytes.
const maxObject = 5 << 30

// connections is how many idle ones are kept: what the fetcher asks for at a time goes over as many, one after the other, without new handshakes.
const connections = 64

// credentialsTime bounds the questions for credentials to services of a cloud that may not be there.
const credentialsTime = 5 * time.Second

func init() {
	// The library waits after its last try, too, before it says that it failed. It makes no other here, and nobody else uses it.
	minio.DefaultRetryUnit = 0
}

// Open returns the bucket that a URL names; the package says how. It asks nothing of the store, which may be down. A bucket that is an [io.Closer] lets go of
// its idle connections when it is closed.
func Open(_ context.Context, rawURL string) (blob.Bucket, error) {
	loc, err := parse(rawURL)
	if err != nil {
		return nil, err
	}
	if loc.scheme == schemeFile {
		d, err := blob.NewDir(loc.folder)
		if err != nil {
			return nil, err // not a nil *Dir
		}
		return d, nil
	}
	return open(loc)
}

// store is a bucket of an object store.
type store struct {
	loc       location
	core      minio.Core
	transport *http.Transport
	proof     proof
}

var _ blob.Bucket = (*store)(nil)

func open(loc location) (*store, error) {
	endpoint, err := url.Parse(loc.server())
	if err != nil {
		return nil, err
	}
	secure := endpoint.Scheme == "https"
	transport, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, err
	}
	transport.MaxIdleConnsPerHost = connections
	region := loc.region
	if region == "" && loc.endpoint != "" {
		region = otherRegion
	}
	client, err := minio.New(endpoint.Host, &minio.Options{
		Creds:      credentials.NewChainCredentials(providers()),
		Secure:     secure,
		Transport:  transport,
		Region:     region,
		MaxRetries: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrURL, err)
	}
	client.SetAppInfo("thaw", "1")
	return &store{loc: loc, core: minio.Core{Client: client}, transport: transport, proof: knownProof(loc.exclusive)}, nil
}

// server returns the URL of the store.
func (l location) server() string {
	switch {
	case l.endpoint != "":
		return l.endpoint
	case l.scheme == schemeGS:
		return googleEndpoint
	}
	return amazonEndpoint
}

// providers are who is asked for credentials, in this order.
func providers() []credentials.Provider {
	return []credentials.Provider{
		&credentials.EnvAWS{},
		&credentials.FileAWSCredentials{},
		&credentials.IAM{Client: &http.Client{Timeout: credentialsTime}},
	}
}

// Close lets go of idle connections.
func (s *store) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// String implements blob.Reader.
func (s *store) String() string { return s.loc.String() }

// object returns the name of a blob's object.
func (s *store) object(key string) string {
	if s.loc.prefix == "" {
		return key
	}
	return s.loc.prefix + "/" + key
}

// Size implements blob.Reader.
func (s *store) Size(ctx context.Context, key string) (int64, error) {
	if err := blob.ValidateKey(key); err != nil {
		return 0, err
	}
	info, err := s.core.StatObject(ctx, s.loc.bucket, s.object(key), minio.StatObjectOptions{})
	if err != nil {
		return 0, failed("size of", key, err)
	}
	return info.Size, nil
}

// Delete implements blob.Bucket.
func (s *store) Delete(ctx context.Context, key string) error {
	if err := blob.ValidateKey(key); err != nil {
		return err
	}
	err := failed("delete", key, s.core.RemoveObject(ctx, s.loc.bucket, s.object(key), minio.RemoveObjectOptions{}))
	if errors.Is(err, blob.ErrNotFound) {
		return nil
	}
	return err
}

// List implements blob.Bucket: 1000 objects with each request. Objects that are no blobs are left out.
func (s *store) List(ctx context.Context, prefix string) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		if err := blob.ValidatePrefix(prefix); err != nil {
			yield(blob.Info{}, err)
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for object := range s.core.ListObjectsIter(ctx, s.loc.bucket, minio.ListObjectsOptions{Prefix: s.object(prefix), Recursive: true}) {
			if object.Err != nil {
				yield(blob.Info{}, failed("list", prefix, object.Err))
				return
			}
			key := strings.TrimPrefix(object.Key, s.object(""))
			if blob.ValidateKey(key) != nil {
				continue
			}
			if !yield(blob.Info{Key: key, Size: object.Size, Modified: object.LastModified.UnixNano()}, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil { // the library ends without a word
			yield(blob.Info{}, failed("list", prefix, err))
		}
	}
}

// Create implements blob.Bucket.
func (s *store) Create(ctx context.Context, key string, r io.Reader, size int64) error {
	if err := blob.ValidateKey(key); err != nil {
		return err
	}
	exclusive, err := s.proof.get(ctx, s)
	if err != nil {
		return failed("create", key, fmt.Errorf("find out whether the store can refuse to replace an object: %w", err))
	}
	var opts minio.PutObjectOptions
	if exclusive {
		opts.SetMatchETagExcept("*")
	} else if _, err := s.Size(ctx, key); err == nil {
		return failed("create", key, blob.ErrExists)
	} else if !errors.Is(err, blob.ErrNotFound) {
		return err
	}
	return failed("create", key, s.put(ctx, s.object(key), r, size, opts))
}

// Replace implements blob.Bucket.
func (s *store) Replace(ctx context.Context, key string, r io.Reader, size int64) error {
	if err := blob.ValidateKey(key); err != nil {
		return err
	}
	return failed("replace", key, s.put(ctx, s.object(key), r, size, minio.PutObjectOptions{}))
}

func (s *store) put(ctx context.Context, object string, r io.Reader, size int64, opts minio.PutObjectOptions) error {
	if size < 0 || size > maxObject {
		return fmt.Errorf("%w: %d bytes; an object has up to %d", blob.ErrSize, size, int64(maxObject))
	}
	// The library sees neither an io.Seeker nor an io.Closer: it could neither try again nor close what is not its own.
	source := &source{r: blob.Exact(ctx, r, size)}
	if size == 0 {
		if _, err := source.Read(make([]byte, 1)); !errors.Is(err, io.EOF) { // the library would not look
			return err
		}
	}
	opts.DisableMultipart = true
	// Without TLS the library sends content in signed chunks, an empty one as nothing but a last chunk. versitygw does not read that, and takes it for the next request.
	opts.DisableContentSha256 = size == 0
	_, err := s.core.Client.PutObject(ctx, s.loc.bucket, object, source, size, opts)
	if cause := source.failure(); err != nil && cause != nil {
		return cause // rather than what became of the connection
	}
	return err
}
