// Package function runs the functions that are deployed: it starts instances when they are called for, takes snapshots of them, restores
// those, and stops instances that nobody needs.
//
//	server      all functions of a state folder; see [Server]
//	pool        the instances of one object (a class or function) of one version, constructed with the same parameters
//	cold boot   an instance that is started: imports, constructor, enter(snap=True), enter(snap=False)
//	freeze      an instance of its own, which serves nobody, is taken to where enter(snap=True) has run, and frozen
//	restore     an instance from a snapshot: only what follows enter(snap=True) is left to do
//	template    a snapshot of a process that has imported modules, on top of which others are taken
//
// The first boots of a version are cold. After as many as Options.FreezeAfter says a freeze begins behind them, which no call waits for; later
// boots are restores. A restore that fails, or whose hooks fail, costs the call that waits for it a cold start and nothing else. One that
// comes up and ends by itself before it has finished a call costs those in it. A snapshot whose restores fail a few times in a row, in either way,
// is set aside, with the reason, and another one is taken in time.
//
// A pool begins with the first call of its target, and ends, with its lease on the version's files, when another version is current and the last
// of what it has is gone. If its version becomes current again before that it goes on. Whoever takes the last of something away from a pool
// calls pool.leave.
//
// Lock order: Server.mu, then pool.mu. Nothing is read from the disk while a pool's is held. Goroutines and calls are in Server.group: a call is
// from its arrival, so that what it starts may join.
//
// The life of one container is package instance's; what a version is, and where it is kept, that of packages version and registry.
package function
