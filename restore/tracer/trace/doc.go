// Package trace holds the record of which pages processes touched first, and its file.
//
// A [Trace] lists first touches: of each page of each address space the first one that the kernel noticed, and, if that
// was a read, the first write as well. Around them it says what they are worth: where in the kernel they were noticed and
// what cannot be seen from there, how many were lost, and how the recording ended.
//
// A [Builder] makes a trace of the events of a recording; [Trace.Encode] and [Decode] are the file, which
// docs/format/trace.md describes; [Summarize] counts. The package knows nothing of the kernel, so traces can be read and
// planned with anywhere.
//
// # Words
//
//   - A space is an address space: that of a chosen process, of one that it forked, or of a program that it executed.
//   - A touch is an access that faulted, whatever came of it: also one that ended with a signal.
//   - A region is a mapping, as far as it was known.
package trace
