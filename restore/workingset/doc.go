// Package workingset holds which pages of a snapshot the processes that are restored from it touch.
//
// A [Recording] says what one restore touched, and comes from a trace ([FromTrace]) or from whoever else saw the faults. A
// [Set] learns from recordings ([Set.Add]) and from other sets ([Merge]); [Set.Encode] and [Decode] are its file, which
// docs/format/workingset.md describes. [Cut] makes a [Plan] of it: what to bring before it is asked for, and in which
// order. [Compare] says afterwards what that was worth. All of it is a hint: a restore goes without as well.
//
// The package works on values and knows neither the store nor the kernel. Nothing in it is safe for concurrent use while a
// set changes.
//
// # Words
//
//   - An object has pages: the image of the snapshot, whose path is empty, or a file that the processes map, by its path
//     as they see it.
//   - A page was observable in a recording if a touch of it would have been seen. A page that Thaw itself installed early is
//     not, since its touch does not fault: the recording says nothing of it, neither that it is needed nor that it is not.
//     So a set never learns from what was brought because of it.
//   - The history of a page is what was seen of it in the last 32 recordings in which it was observable. Recordings in
//     which it was not leave the history as it is, however many they are: a page that is brought each time, and so is
//     never observable, keeps its place.
//   - Its share is how many recordings of its history it was touched in, of all in its history.
//   - A run is a range of consecutive pages.
package workingset
