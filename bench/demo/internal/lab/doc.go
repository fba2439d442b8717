// Package lab runs the demo's experiments: it freezes one container, starts it again in each mode, and measures.
//
// All modes get the same container, the same request and the same state of the page cache, and what one restore needs
// counts for it, the start of its memory server included. What is there before, as thawd or the image files are, does
// not. The request lies in the container's pipe when the clock starts, so nobody waits for a client.
package lab
