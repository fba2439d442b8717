// Package version says what a version of a function app is, and gives it a key.
//
//	app          the functions and classes of one file of Python that are deployed together, under the name that the file gives
//	description  what the app's own code says of it: see [Description]
//	version      an app at one time: its files, what it runs on, and what its processes may use
//	part         what a version's key is made of: code, dependencies, data, runtime, CPU; each has a digest of its own, so that two
//	             versions can be compared: see [Diff]
//	key          the SHA-256 of the digests of the parts. A snapshot of another key's process is never used: any change, even of a
//	             comment, makes a new key
//
// Everything here is a function of values, but for [Collect], which reads files. docs/format/functions.md says how a key is computed.
package version
