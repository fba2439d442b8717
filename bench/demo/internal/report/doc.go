// Package report turns the measured runs of the demo into its report: the JSON document, the table and the plot.
//
// Words used here: a mode is a way to get a process that answers; a cache state says whether the files that a run reads
// lie in the page cache before it. W is the time of a warm call: the request answered by a process whose memory is all
// there. The overhead of a run is its first response, less its W, less the median floor of the same cache state: what
// the mode's way of bringing memory costs, with the work itself and the container machinery taken out.
package report
