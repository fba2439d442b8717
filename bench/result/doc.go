// Package result is what a run of the benchmarks comes to: one document, and what can be computed from it.
//
// # Words
//
//   - scenario: a question, such as what a thread waits for a missing page. params: one setting of it.
//   - subject: who is measured: the engine, or a baseline.
//   - series: all that was measured of one metric, for one scenario, params and subject.
//   - repetition: one go through all trials of a scenario. Ratios are taken between medians over repetitions of one
//     run, never between runs.
//   - observation: one measured value. A repetition observes a throughput once and a latency thousands of times.
package result
