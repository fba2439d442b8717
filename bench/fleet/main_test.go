package fleet

import (
	"testing"

	"thaw/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
