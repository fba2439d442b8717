// Package network gives each instance of a function a network namespace of its own.
//
// A namespace is made before the instance and bound to a path in the network's folder, so that runc and CRIU take it as somebody
// else's: a freeze does not look into it, and a restore need not build one. It begins with the loopback interface alone, up.
// [Namespace.Attach] connects it to a bridge, with an address of the network's subnet and a default route; without a bridge there is
// nothing to attach to.
//
//	host                                    namespace of an instance
//	bridge 10.77.0.1/16 --- veth pair --- eth0 10.77.0.2/16, default via 10.77.0.1
//
// Whoever holds a network's folder (an exclusive flock of its lock file) owns everything that is named in it, and the bridge, which
// carries the folder's path as its alias. So what a killed owner has left is known, and [Open] removes it.
package network
