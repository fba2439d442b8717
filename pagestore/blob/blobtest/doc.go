// Package blobtest tests places of blobs: a suite that all of them pass, and wrappers that misbehave in one known way each.
//
// [Run] is the suite for buckets, [RunReader] for places that can only be read. [Memory] is a bucket to put the wrappers around: it passes the suite.
//
// The wrappers are for the tests of whoever uses a place. Each takes a [blob.Reader], and is a [blob.Bucket] all the same: what it does not spoil it
// passes on, and what its inner place cannot do is errors.ErrUnsupported. They use neither clocks nor chance, and nest:
//
//	[Slow]      one byte at a time, with a pause before each that the test gives
//	[Short]     bodies end early, and as if that were their end
//	[Broken]    bodies end early, with an error
//	[Failing]   the first calls fail, as with 503
//	[Lying]     bytes are flipped
//	[Hanging]   calls, or bodies, stop until the context ends
//	[Stale]     answers as of some time ago
//	[Full]      there is room for so many bytes
//	[Recorder]  behaves, and counts what is asked of it
//	[Switch]    passes all to a place that the test can change
package blobtest
