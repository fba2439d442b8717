// Package functions measures functions as their callers see them: deployed with thaw deploy, run by thaw serve, called over its socket.
//
// A [Place] is a thawd and a function server with folders of their own. [Scenario] is the part of the benchmarks; the command in demo shows the
// same in a minute.
package functions
