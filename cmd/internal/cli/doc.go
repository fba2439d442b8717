// Package cli is what thaw and thawd share as command line programs: how they exit, how they tell errors and progress,
// and where their defaults come from.
package cli
