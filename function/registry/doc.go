// Package registry keeps the versions of function apps on the disk, and what is known of their snapshots.
//
//	STATE/format                             which version of this layout; written last when the folder is made
//	STATE/lock                               flock: one deployment, removal or collection at a time
//	STATE/apps/APP/current                   the key of the version that new instances get
//	STATE/apps/APP/versions/KEY/version.json what the version is: [Record]
//	STATE/apps/APP/versions/KEY/stats.json   its snapshots and how they do: [Stats]; missing until there is something to say
//	STATE/apps/APP/versions/KEY/code/        the app's files, as they were when it was deployed
//	STATE/templates/KEY/stats.json           snapshots that several versions share
//	STATE/sdk/DIGEST/                        the SDK that versions were deployed with: package sdk
//	STATE/removed/                           versions that were removed while somebody leased them
//	STATE/staging/                           a deployment in flight; whatever the next one finds there was abandoned
//
// docs/format/functions.md has the formats.
//
// # Who may do what at the same time
//
// Deploy, Remove and GC hold the lock. Readers need none: a version appears by one rename and disappears by one, files are replaced by
// renaming, and code never changes. Who uses a version's code folder for longer holds a lease on it (a shared flock on the folder), and it
// stays, though perhaps at another path, until the lease ends. Updates of one stats.json lock the folder that it is in, and
// nothing else: they go on while a large app is copied.
package registry
