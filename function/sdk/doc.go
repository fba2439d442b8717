// Package sdk puts the files of the Python SDK, which the programs carry, where a Python can import them.
//
//	BASE/DIGEST/thaw/...   one folder for each SDK that there was; never changed
//
// A version of a function names the SDK that it was deployed with by its digest, and goes on with it when a newer thaw brings another one.
package sdk
