// Package testenv tells tests what this machine has, and skips those that need what it lacks.
//
// A skip says what is missing and how to get it. With THAW_REQUIRE=1 in the environment, as in CI, a missing
// thing fails the test instead, so that a broken set-up cannot pass for a green run.
package testenv
