package baseline

import (
	"context"
	"errors"
	"os"
	"strconv"
)

// ReadFile measures reading the first n bytes of a file into fresh anonymous memory.
func ReadFile(ctx context.Context, file *os.File, n uint64) (Cost, error) {
	return measure(ctx, "read", file, n)
}

// MapFile measures mapping the first n bytes of a file privately and touching each page.
func MapFile(ctx context.Context, file *os.File, n uint64) (Cost, error) {
	return measure(ctx, "map", file, n)
}

func measure(ctx context.Context, how string, file *os.File, n uint64) (cost Cost, err error) {
	c, err := start("memory", []*os.File{file}, how, strconv.FormatUint(n, 10))
	if err != nil {
		return Cost{}, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	line, err := c.line(ctx)
	if err != nil {
		return Cost{}, err
	}
	return parseCost(line)
}
