package objectstore

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/minio/minio-go/v7"

	"thaw/pagestore/blob"
)

// failed says what could not be done with which blob, and what that means for a bucket.
func failed(op, key string, err error) error {
	if err == nil {
		return nil
	}
	if kind := meaning(err); kind != nil && !errors.Is(err, kind) {
		return fmt.Errorf("%s %s: %w: %w", op, key, kind, err)
	}
	return fmt.Errorf("%s %s: %w", op, key, err)
}

// meaning returns which of blob's errors an answer is, or nil for others: most of them may be worth another try.
func meaning(err error) error {
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) {
		return nil
	}
	switch answer.Code {
	case minio.NoSuchBucket:
		// That the bucket is missing must not be taken for an answer about a blob.
		return fmt.Errorf("there is no bucket %q", answer.BucketName)
	case "SlowDown", "SlowDownRead", "SlowDownWrite", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestThrottled", "ServiceUnavailable",
		"ConditionalRequestConflict": // another is putting the same object at this moment
		return blob.ErrBusy
	case "QuotaExceeded", "InsufficientCapacity", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded":
		return blob.ErrNoSpace
	}
	switch answer.StatusCode {
	case http.StatusNotFound:
		return blob.ErrNotFound
	case http.StatusPreconditionFailed:
		return blob.ErrExists
	case http.StatusUnauthorized, http.StatusForbidden:
		return blob.ErrDenied
	case http.StatusRequestedRangeNotSatisfiable:
		return blob.ErrRange
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return blob.ErrBusy
	case http.StatusInsufficientStorage:
		return blob.ErrNoSpace
	}
	return nil
}
