package lazypages

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// arguments is what the command line and the configuration files say, as far as it concerns lazy-pages.
type arguments struct {
	imagesDir string
	workDir   string // log, pidfile and socket; default: imagesDir
	logFile   string // in workDir, or toStdout; default: standard error
	pidFile   string // in workDir; of a daemon
	verbosity int    // 0 to 4: none, errors, warnings, information, debugging
	daemon    bool
	statusFD  int // -1: none
	scripts   []string

	pageServer bool
	address    string
	port       int
	psSocket   int // -1: none
	tls        tlsArguments

	help, version bool
}

type tlsArguments struct {
	on            bool
	caCert, caCRL string
	cert, key     string
	anyName       bool // the server's certificate may name another host
}

// toStdout in place of a log file's name is standard output.
const toStdout = "-"

// defaultVerbosity is CRIU's: warnings and errors.
const defaultVerbosity = 2

// newArguments puts together what configuration files and the command line say; the later wins. args begins after the
// word lazy-pages, which may stand there again.
func newArguments(args []string) (*arguments, error) {
	settings, rest, err := parseArgs(args)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 && rest[0] == "lazy-pages" {
		rest = rest[1:]
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: unexpected argument %q", errUsage, rest[0])
	}
	a := &arguments{verbosity: defaultVerbosity, statusFD: -1, psSocket: -1}
	if slices.ContainsFunc(settings, func(s setting) bool { return s.name == "help" }) {
		a.help = true // whatever is wrong with a configuration file
		return a, nil
	}
	fromFiles, err := configSettings(settings)
	if err != nil {
		return nil, err
	}
	for _, s := range append(fromFiles, settings...) {
		if err := a.apply(s); err != nil {
			return nil, err
		}
	}
	return a, a.complete()
}

// apply takes in one option.
func (a *arguments) apply(s setting) (err error) {
	switch s.name {
	case "images-dir":
		a.imagesDir = s.value
	case "work-dir":
		a.workDir = s.value
	case "log-file":
		a.logFile = s.value
	case "pidfile":
		a.pidFile = s.value
	case "daemon", "restore-detached":
		a.daemon = !s.off
	case "action-script":
		a.scripts = append(a.scripts, s.value)
	case "verbosity":
		err = a.applyVerbosity(s)
	case "status-fd":
		a.statusFD, err = number(s)
	case "page-server":
		a.pageServer = !s.off
	case "address":
		a.address = s.value
	case "port":
		a.port, err = number(s)
	case "ps-socket":
		a.psSocket, err = number(s)
	case "tls":
		a.tls.on = !s.off
	case "tls-cacert":
		a.tls.caCert = s.value
	case "tls-cacrl":
		a.tls.caCRL = s.value
	case "tls-cert":
		a.tls.cert = s.value
	case "tls-key":
		a.tls.key = s.value
	case "tls-no-cn-verify":
		a.tls.anyName = !s.off
	case "help":
		a.help = true
	case "version":
		a.version = true
	}
	return err
}

// applyVerbosity understands -v, -vvv, -v4 and --verbosity=4.
func (a *arguments) applyVerbosity(s setting) (err error) {
	switch {
	case !s.given:
		a.verbosity++
	case strings.Trim(s.value, "v") == "" && s.value != "":
		a.verbosity += len(s.value) + 1
	default:
		a.verbosity, err = number(s)
	}
	return err
}

func number(s setting) (int, error) {
	n, err := strconv.Atoi(s.value)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%w: --%s %q is not a number", errUsage, s.name, s.value)
	}
	return n, nil
}

// complete fills in defaults, and checks what belongs together.
func (a *arguments) complete() error {
	if a.imagesDir == "" {
		a.imagesDir = "."
	}
	if a.workDir == "" {
		a.workDir = a.imagesDir
	}
	a.pidFile = a.inWorkDir(a.pidFile)
	if a.logFile != toStdout {
		a.logFile = a.inWorkDir(a.logFile)
	}
	if a.pageServer && a.psSocket < 0 && a.port == 0 && !a.help {
		return fmt.Errorf("%w: --page-server needs --port or --ps-socket", errUsage)
	}
	return nil
}

func (a *arguments) inWorkDir(file string) string {
	if file == "" || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(a.workDir, file)
}

// level translates CRIU's verbosity.
func (a *arguments) level() slog.Level {
	switch {
	case a.verbosity <= 0:
		return slog.LevelError + 4 // above all that is logged
	case a.verbosity == 1:
		return slog.LevelError
	case a.verbosity == 2:
		return slog.LevelWarn
	case a.verbosity == 3:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// configSettings reads the configuration files that CRIU would read: those of the system and the user, unless --config or
// --no-default-config is given, the one in the environment, and --config.
func configSettings(settings []setting) ([]setting, error) {
	type file struct {
		name     string
		optional bool
	}
	var files []file
	defaults, last := true, ""
	for _, s := range settings {
		switch s.name {
		case "no-default-config":
			defaults = false
		case "config":
			defaults, last = false, s.value
		}
	}
	if defaults {
		files = append(files, file{"/etc/criu/default.conf", true})
		if home := os.Getenv("HOME"); home != "" {
			files = append(files, file{filepath.Join(home, ".criu/default.conf"), true})
		}
	}
	if name := os.Getenv("CRIU_CONFIG_FILE"); name != "" {
		files = append(files, file{name, false})
	}
	if last != "" {
		files = append(files, file{last, false})
	}
	var out []setting
	for _, f := range files {
		more, err := readConfig(f.name)
		if f.optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		out = append(out, more...)
	}
	return out, nil
}

// readConfig reads a file of options without dashes, one a line, "#" for comments, with the argument after a blank or
// an equals sign, in double quotes if it holds blanks.
func readConfig(name string) ([]setting, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []setting
	sc := bufio.NewScanner(f)
	for line := 1; sc.Scan(); line++ {
		s, err := parseConfigLine(sc.Text())
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, line, err)
		}
		if s.name != "" {
			out = append(out, s)
		}
	}
	return out, sc.Err()
}

func parseConfigLine(line string) (setting, error) {
	name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
	if tab := strings.IndexByte(name, '\t'); tab >= 0 {
		name, value = name[:tab], name[tab+1:]+" "+value
	}
	if name == "" || name[0] == '#' {
		return setting{}, nil
	}
	value, err := configValue(strings.TrimSpace(value))
	if err != nil {
		return setting{}, err
	}
	var next []string
	if value != "" {
		if o, _, err := findLong(name); err == nil && o.arg == optionalArgument {
			name += "=" + value
		} else {
			next = []string{value}
		}
	}
	s, used, err := parseLong(name, next)
	if err == nil && used < len(next) {
		err = fmt.Errorf("%w: option %s takes no argument", errUsage, name)
	}
	return s, err
}

// configValue strips quotes and a comment.
func configValue(v string) (string, error) {
	if !strings.HasPrefix(v, `"`) {
		v, _, _ = strings.Cut(v, "#")
		return strings.TrimSpace(v), nil
	}
	var out strings.Builder
	for i := 1; i < len(v); i++ {
		switch {
		case v[i] == '"':
			return out.String(), nil
		case v[i] == '\\' && i+1 < len(v):
			i++
		}
		out.WriteByte(v[i])
	}
	return "", fmt.Errorf("%w: quote without end", errUsage)
}
