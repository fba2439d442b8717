package lazypages

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// argument says whether an option takes an argument.
type argument uint8

const (
	noArgument argument = iota
	requiredArgument
	optionalArgument // only as --name=value, or attached to the short option
)

// An option is one that CRIU's command line knows. short is 0 if it has a long name only, long "" for the reverse.
type option struct {
	long  string
	short byte
	arg   argument
}

// options is all that CRIU 4.2 accepts, whichever command it is given: a runtime that passes the same list to every
// command must not fail here. What does not concern lazy-pages is checked for its form and ignored.
var options = []option{
	{"address", 0, requiredArgument},
	{"action-script", 0, requiredArgument},
	{"all", 0, noArgument},
	{"allow-uprobes", 0, noArgument},
	{"auto-dedup", 0, noArgument},
	{"cgroup-dump-controller", 0, requiredArgument},
	{"cgroup-props", 0, requiredArgument},
	{"cgroup-props-file", 0, requiredArgument},
	{"cgroup-root", 0, requiredArgument},
	{"cgroup-yard", 0, requiredArgument},
	{"close", 0, requiredArgument},
	{"config", 0, requiredArgument},
	{"cpu-cap", 0, optionalArgument},
	{"daemon", 'd', noArgument},
	{"deprecated", 0, noArgument},
	{"display-stats", 0, noArgument},
	{"empty-ns", 0, requiredArgument},
	{"enable-external-masters", 0, noArgument},
	{"enable-external-sharing", 0, noArgument},
	{"enable-fs", 0, requiredArgument},
	{"evasive-devices", 0, noArgument},
	{"exec-cmd", 0, noArgument},
	{"experimental", 0, noArgument},
	{"ext-mount-map", 'M', requiredArgument},
	{"ext-unix-sk", 'x', optionalArgument},
	{"external", 0, requiredArgument},
	{"extra", 0, noArgument},
	{"feature", 0, requiredArgument},
	{"file-locks", 'l', noArgument},
	{"file-validation", 0, requiredArgument},
	{"force-irmap", 0, noArgument},
	{"freeze-cgroup", 0, requiredArgument},
	{"ghost-fiemap", 0, noArgument},
	{"ghost-limit", 0, requiredArgument},
	{"help", 'h', noArgument},
	{"images-dir", 'D', requiredArgument},
	{"inherit-fd", 0, requiredArgument},
	{"irmap-scan-path", 0, requiredArgument},
	{"join-ns", 'J', requiredArgument},
	{"lazy-pages", 0, noArgument},
	{"leave-running", 'R', noArgument},
	{"leave-stopped", 's', noArgument},
	{"libdir", 'L', requiredArgument},
	{"link-remap", 0, noArgument},
	{"log-file", 'o', requiredArgument},
	{"log-pid", 0, noArgument},
	{"lsm-mount-context", 0, requiredArgument},
	{"lsm-profile", 0, requiredArgument},
	{"manage-cgroups", 0, optionalArgument},
	{"mntns-compat-mode", 0, noArgument},
	{"network-lock", 0, requiredArgument},
	{"no-default-config", 0, noArgument},
	{"page-server", 0, noArgument},
	{"pidfile", 0, requiredArgument},
	{"port", 0, requiredArgument},
	{"pre-dump-mode", 0, requiredArgument},
	{"prev-images-dir", 0, requiredArgument},
	{"ps-socket", 0, requiredArgument},
	{"restore-detached", 'd', noArgument},
	{"restore-sibling", 'S', noArgument},
	{"root", 'r', requiredArgument},
	{"shell-job", 'j', noArgument},
	{"skip-file-rwx-check", 0, noArgument},
	{"skip-in-flight", 0, noArgument},
	{"skip-mnt", 0, requiredArgument},
	{"status-fd", 0, requiredArgument},
	{"stream", 0, noArgument},
	{"tcp-close", 0, noArgument},
	{"tcp-established", 0, noArgument},
	{"timeout", 0, requiredArgument},
	{"tls", 0, noArgument},
	{"tls-cacert", 0, requiredArgument},
	{"tls-cacrl", 0, requiredArgument},
	{"tls-cert", 0, requiredArgument},
	{"tls-key", 0, requiredArgument},
	{"tls-no-cn-verify", 0, noArgument},
	{"track-mem", 0, noArgument},
	{"tree", 't', requiredArgument},
	{"unprivileged", 0, noArgument},
	{"verbosity", 'v', optionalArgument},
	{"version", 'V', noArgument},
	{"weak-sysctls", 0, noArgument},
	{"work-dir", 'W', requiredArgument},
}

// A setting is one option as it was given.
type setting struct {
	name  string // long name
	value string
	given bool // there is a value, perhaps an empty one
	off   bool // given as --no-NAME
}

// errUsage marks a command line that cannot be understood.
var errUsage = errors.New("bad usage")

// parseArgs reads a command line as getopt_long does: options may stand anywhere, long ones may be shortened as long as
// they are unambiguous, short ones may share a dash, and "--" ends them. It returns what is left over as well.
func parseArgs(args []string) (settings []setting, rest []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			return settings, append(rest, args...), nil
		case strings.HasPrefix(arg, "--"):
			s, used, err := parseLong(arg[2:], args)
			if err != nil {
				return nil, nil, err
			}
			settings = append(settings, s)
			args = args[used:]
		case len(arg) > 1 && arg[0] == '-':
			more, used, err := parseShort(arg[1:], args)
			if err != nil {
				return nil, nil, err
			}
			settings = append(settings, more...)
			args = args[used:]
		default:
			rest = append(rest, arg)
		}
	}
	return settings, rest, nil
}

// parseLong reads one long option without its dashes, and says how many of the following arguments it used.
func parseLong(arg string, next []string) (setting, int, error) {
	name, value, hasValue := strings.Cut(arg, "=")
	opt, off, err := findLong(name)
	if err != nil {
		return setting{}, 0, err
	}
	s := setting{name: opt.long, value: value, given: hasValue, off: off}
	switch {
	case opt.arg == noArgument && hasValue:
		return s, 0, fmt.Errorf("%w: option --%s takes no argument", errUsage, opt.long)
	case opt.arg == requiredArgument && !hasValue && len(next) == 0:
		return s, 0, fmt.Errorf("%w: option --%s needs an argument", errUsage, opt.long)
	case opt.arg == requiredArgument && !hasValue:
		s.value, s.given = next[0], true
		return s, 1, nil
	}
	return s, 0, nil
}

// findLong returns the option called name, or the only one that begins so; off if it was called no-name.
func findLong(name string) (opt *option, off bool, err error) {
	var found []*option
	for i := range options {
		o := &options[i]
		if o.long == name {
			return o, false, nil
		}
		if o.arg == noArgument && "no-"+o.long == name {
			return o, true, nil
		}
		if name != "" && strings.HasPrefix(o.long, name) {
			found = append(found, o)
		}
	}
	switch len(found) {
	case 0:
		return nil, false, fmt.Errorf("%w: unknown option --%s", errUsage, name)
	case 1:
		return found[0], false, nil
	}
	return nil, false, fmt.Errorf("%w: option --%s may be --%s or --%s", errUsage, name, found[0].long, found[1].long)
}

// parseShort reads the options that share a dash.
func parseShort(cluster string, next []string) (settings []setting, used int, err error) {
	for cluster != "" {
		c := cluster[0]
		cluster = cluster[1:]
		i := slices.IndexFunc(options, func(o option) bool { return o.short == c })
		if i < 0 {
			return nil, 0, fmt.Errorf("%w: unknown option -%c", errUsage, c)
		}
		s := setting{name: options[i].long}
		switch {
		case options[i].arg != noArgument && cluster != "":
			s.value, s.given = cluster, true
			cluster = ""
		case options[i].arg == requiredArgument && len(next) == 0:
			return nil, 0, fmt.Errorf("%w: option -%c needs an argument", errUsage, c)
		case options[i].arg == requiredArgument:
			s.value, s.given = next[0], true
			used = 1
		}
		settings = append(settings, s)
	}
	return settings, used, nil
}
