// Package lab freezes containers and starts them again in several ways, to measure how soon they answer.
//
// All ways get the same container, the same request and the same state of the page cache, and what one restore needs
// counts for it, the start of its memory server included. What is there before, as thawd or the image files are, does
// not. The request lies in the container's pipe when the clock starts, so nobody waits for a client; a service that speaks HTTP gets it as
// soon as the runtime says that the container runs.
//
// Words used here: a workload is a program that answers requests; an input is one of two that it is asked; a mode is a way to get a container that answers; a
// cache state says whether the files that a run reads lie in the page cache before it. W is the time of a warm call: the
// request answered by a process whose memory is all there. A burst is several restores at the same time.
package lab
