// Package placement says which nodes to ask for an object.
//
// It knows two things, and both may be wrong: who is a member now ([Static] or [Gossip]), and who said lately that it has an object ([Hints]). What
// nobody said follows from the members' names ([Rank], rendezvous hashing): all nodes that see the same members name the same owners, and
// a member that comes or goes changes the owners of its own share only. Nothing is agreed upon. Who is asked in vain says so, and a node that died is
// not a member any more.
//
// Words: an *object* is named by its namespace and its key in it; an *owner* is a node that has it if placement had its way; a *hint* is a node's word
// that it has an object.
package placement
