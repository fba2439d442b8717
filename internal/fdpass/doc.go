// Package fdpass receives descriptors from peers that are not trusted to send the right ones.
//
// Whatever a peer attaches to a message becomes an open descriptor of this process, before anybody can object.
// So a receiver says how many it expects; any other number is closed again, all of them, and reported as
// an error. What arrives does not survive exec.
package fdpass
