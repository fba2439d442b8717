// Package aside makes threads that have the CPU and the disk when nobody else wants them.
package aside
