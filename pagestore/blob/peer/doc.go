// Package peer reads the blobs that another node holds, over HTTPS.
//
// A [Server] answers for any blob.Reader, a [Client] is a blob.Reader; docs/protocol/peer.md says what goes between them. Both ends show a
// certificate of the same authority, TLS 1.3 and nothing older. The certificate says which node it is, and the node's name decides which namespaces it
// may read: a node that is no member of one is told that there is no such blob, before anybody looks whether there is.
//
// What a peer sends is not believed: lengths are checked here, bytes by whoever reads them.
//
// Words: a *node* is a machine by its name in its certificate; a *bulk* transfer is one of more than [Small] bytes.
package peer
