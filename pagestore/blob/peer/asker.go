package peer

import "context"

type askerKey struct{}

// WithAsker returns a context that says for which node something is asked. A Server asks its blobs with such.
func WithAsker(ctx context.Context, node string) context.Context {
	return context.WithValue(ctx, askerKey{}, node)
}

// Asker returns the node for which something is asked; "" if no other node asks.
func Asker(ctx context.Context) string {
	node, _ := ctx.Value(askerKey{}).(string)
	return node
}
