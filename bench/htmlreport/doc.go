// Package htmlreport writes a document of the benchmarks as one self-contained HTML page.
package htmlreport
