package lazypages

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestArguments(t *testing.T) {
	for _, tc := range []struct {
		name string
		args string
		want arguments
	}{
		{"CRIU's own tests", "lazy-pages --no-default-config --log-file lazy-pages.log --images-dir dump/1 --verbosity=4 --status-fd 7",
			arguments{imagesDir: "dump/1", workDir: "dump/1", logFile: "dump/1/lazy-pages.log", verbosity: 4, statusFD: 7}},
		{"nothing", "", arguments{imagesDir: ".", workDir: "."}},
		{"short options", "-D a -W b -o log -v4 -d -j", arguments{imagesDir: "a", workDir: "b", logFile: "b/log", verbosity: 4, daemon: true}},
		{"short options with their argument attached", "-Da -Wb -olog", arguments{imagesDir: "a", workDir: "b", logFile: "b/log"}},
		{"short options that share a dash", "-djv4", arguments{imagesDir: ".", workDir: ".", daemon: true, verbosity: 4}},
		{"many v", "-vvvv", arguments{imagesDir: ".", workDir: ".", verbosity: 6}},
		{"v many times", "-v -v", arguments{imagesDir: ".", workDir: ".", verbosity: 4}},
		{"v and an equals sign", "--verbosity=0", arguments{imagesDir: ".", workDir: ".", verbosity: -100}},
		{"absolute names stay", "-D /a --pidfile /run/x --log-file=/var/log/y", arguments{imagesDir: "/a", workDir: "/a", pidFile: "/run/x", logFile: "/var/log/y"}},
		{"a dash for standard output", "-D /a -o -", arguments{imagesDir: "/a", workDir: "/a", logFile: "-"}},
		{"long options cut short", "--images a --pidf p --stat 3", arguments{imagesDir: "a", workDir: "a", pidFile: "a/p", statusFD: 3}},
		{"a page server", "--page-server --address host --port 27 --tls --tls-cacert ca --tls-cacrl crl --tls-cert c --tls-key k --tls-no-cn-verify",
			arguments{imagesDir: ".", workDir: ".", pageServer: true, address: "host", port: 27,
				tls: tlsArguments{on: true, caCert: "ca", caCRL: "crl", cert: "c", key: "k", anyName: true}}},
		{"options taken back", "--daemon --no-daemon --tls --no-tls", arguments{imagesDir: ".", workDir: "."}},
		{"what CRIU takes and does not need here", "-t 1 --shell-job --libdir /lib --auto-dedup --no-auto-dedup --manage-cgroups --manage-cgroups=soft --external x --ext-mount-map a:b --lazy-pages",
			arguments{imagesDir: ".", workDir: "."}},
		{"scripts", "--action-script a --action-script b", arguments{imagesDir: ".", workDir: ".", scripts: []string{"a", "b"}}},
		{"the last one wins", "-D a -D b", arguments{imagesDir: "b", workDir: "b"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			clean(t)
			got, err := newArguments(strings.Fields(tc.args))
			if err != nil {
				t.Fatal(err)
			}
			want := tc.want
			want.psSocket = -1
			if want.statusFD == 0 {
				want.statusFD = -1
			}
			switch want.verbosity {
			case 0:
				want.verbosity = defaultVerbosity
			case -100:
				want.verbosity = 0
			}
			if diff := cmp.Diff(&want, got, cmp.AllowUnexported(arguments{}, tlsArguments{})); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// clean hides the configuration of the machine.
func clean(t *testing.T) {
	t.Helper()
	t.Setenv("HOME", t.TempDir())
	t.Setenv("CRIU_CONFIG_FILE", "")
}

func TestBadArguments(t *testing.T) {
	for _, tc := range []struct{ args, says string }{
		{"--unknown", "unknown option --unknown"},
		{"-Q", "unknown option -Q"},
		{"--images-dir", "--images-dir needs an argument"},
		{"-D", "-D needs an argument"},
		{"--daemon=yes", "--daemon takes no argument"},
		{"--tls-c x", "may be --tls-cacert or --tls-cacrl"},
		{"--status-fd x", `--status-fd "x" is not a number`},
		{"--status-fd=-1", "is not a number"},
		{"--port=", "is not a number"},
		{"-v4x", "is not a number"},
		{"--page-server", "--page-server needs --port or --ps-socket"},
		{"dump", `unexpected argument "dump"`},
		{"lazy-pages restore", `unexpected argument "restore"`},
		{"-- -D", `unexpected argument "-D"`},
		{"--config /nowhere/at/all", "/nowhere/at/all"},
		{"--=x", "unknown option --"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			clean(t)
			_, err := newArguments(strings.Fields(tc.args))
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error is %v", err)
			}
			var out, errOut strings.Builder
			if code := Main(strings.Fields(tc.args), &out, &errOut); code != 1 || !strings.Contains(errOut.String(), tc.says) {
				t.Errorf("exit code %d, and it says %q", code, errOut.String())
			}
		})
	}
}

func TestConfigurationFiles(t *testing.T) {
	clean(t)
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file(".criu/default.conf", "# the user's\nimages-dir from-user # where\nwork-dir from-user\n\n  daemon\n")
	t.Setenv("HOME", dir)
	t.Setenv("CRIU_CONFIG_FILE", file("env.conf", "work-dir from-env\nlog-file \"a \\\"log\\\"\"\nverbosity 4\n"))
	last := file("last.conf", "log-file\tlast\npidfile=pid\n")

	a, err := newArguments([]string{"--config", last, "--pidfile", "mine"})
	if err != nil {
		t.Fatal(err)
	}
	want := arguments{imagesDir: ".", workDir: "from-env", logFile: "from-env/last", pidFile: "from-env/mine", verbosity: 4, statusFD: -1, psSocket: -1}
	if diff := cmp.Diff(&want, a, cmp.AllowUnexported(arguments{}, tlsArguments{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if a, err = newArguments(nil); err != nil {
		t.Fatal(err)
	}
	want = arguments{imagesDir: "from-user", workDir: "from-env", logFile: `from-env/a "log"`, daemon: true, verbosity: 4, statusFD: -1, psSocket: -1}
	if diff := cmp.Diff(&want, a, cmp.AllowUnexported(arguments{}, tlsArguments{})); diff != "" {
		t.Errorf("with the defaults: -want +got\n%s", diff)
	}
	if a, err = newArguments([]string{"--no-default-config"}); err != nil {
		t.Fatal(err)
	}
	if a.imagesDir != "." || a.workDir != "from-env" || a.logFile != `from-env/a "log"` {
		t.Errorf("without the defaults: %+v", a)
	}
	for _, bad := range []string{"unknown x", "daemon yes", `log-file "a`, "images-dir"} {
		if _, err := newArguments([]string{"--config", file("bad.conf", "tcp-close\n"+bad)}); err == nil || !strings.Contains(err.Error(), "bad.conf:2") {
			t.Errorf("%q: error is %v", bad, err)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	clean(t)
	t.Run("help is given whatever the configuration holds", func(t *testing.T) {
		t.Setenv("CRIU_CONFIG_FILE", "/nowhere/at/all")
		var out, errOut strings.Builder
		if code := Main([]string{"-v4", "--help"}, &out, &errOut); code != 0 || !strings.Contains(out.String(), "--page-server") {
			t.Errorf("exit code %d, %q, %q", code, out.String(), errOut.String())
		}
	})
	for _, tc := range []struct{ arg, says string }{{"-h", "--page-server"}, {"--version", "Version: 4.2\n"}} {
		var out, errOut strings.Builder
		if code := Main([]string{tc.arg}, &out, &errOut); code != 0 || !strings.Contains(out.String(), tc.says) || errOut.Len() > 0 {
			t.Errorf("%s: exit code %d, %q, %q", tc.arg, code, out.String(), errOut.String())
		}
	}
}

// FuzzArguments: a command line, or a line of a configuration file, is understood or refused, and what is understood
// is known.
func FuzzArguments(f *testing.F) {
	f.Add("--images-dir x -v4 -djo log --no-daemon -- rest")
	f.Add(`log-file "a \"b" # c`)
	f.Fuzz(func(t *testing.T, line string) {
		settings, _, err := parseArgs(strings.Split(line, " "))
		if s, configErr := parseConfigLine(line); configErr == nil && s.name != "" {
			settings = append(settings, s)
		} else if configErr != nil && !errors.Is(configErr, errUsage) {
			t.Errorf("error %v is of the wrong kind", configErr)
		}
		if err != nil && !errors.Is(err, errUsage) {
			t.Errorf("error %v is of the wrong kind", err)
		}
		for _, s := range settings {
			if opt, off, err := findLong(s.name); err != nil || off || opt.arg == requiredArgument && !s.given {
				t.Errorf("setting %+v", s)
			}
		}
	})
}
