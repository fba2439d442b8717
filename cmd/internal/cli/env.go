package cli

import "os"

// The defaults of flags that both programs have, and the environment variables that change them. A flag on the command
// line beats both.
const (
	DefaultStore  = "/var/lib/thaw"
	DefaultSocket = "/run/thaw/thawd.sock"
	DefaultState  = "/var/lib/thaw/functions"
	DefaultAPI    = "/run/thaw/functions.sock"

	EnvStore  = "THAW_STORE"
	EnvSocket = "THAW_SOCKET"
	EnvCRIU   = "THAW_CRIU"
	EnvRunc   = "THAW_RUNC"
	EnvState  = "THAW_STATE"
	EnvAPI    = "THAW_API"
	EnvRoot   = "THAW_ROOT"
	EnvSDK    = "THAW_SDK"

	EnvObjectStore = "THAW_OBJECT_STORE"
)

// Env returns the value of the environment variable, or def where it is empty.
func Env(variable, def string) string {
	if v := os.Getenv(variable); v != "" {
		return v
	}
	return def
}

// Version is the version that the programs tell; the linker sets it (-X thaw/cmd/internal/cli.Version=...).
var Version = "devel"
