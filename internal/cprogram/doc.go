// Package cprogram compiles small C programs of ours when they are first needed.
package cprogram
