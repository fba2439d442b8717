// Package doctor says what a host has of what Thaw needs, what it lacks, and how to get it.
//
// [Inspect] looks at the host and returns a [Host]; [Examine] judges a Host and has no effects, so that every verdict can
// be tested on hosts that are not there.
//
// A check that fails blocks: something that Thaw does cannot work here. A warning is about something that works, but
// slower, or only for some containers.
package doctor
