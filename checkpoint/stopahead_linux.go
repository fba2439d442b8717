package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// criuConfigVariable names a configuration file that CRIU reads before those that its caller names.
const criuConfigVariable = "CRIU_CONFIG_FILE"

// A stopAhead has the cgroup of a container frozen by a script of CRIU's, at the stage right before CRIU would do that. CRIU asks its freezer
// once, when the processes have just been told, and next after 100 ms, for which they stand still; the script asks until they do, which takes
// them less than one.
type stopAhead struct {
	freezer        *freezer
	script, config string // paths of files that are removed again
}

// stopAhead prepares that for a dump of the container with CRIU's folder work. It returns nil where there is nothing to gain or where it cannot
// be done: the dump is as good without.
func (t *Tools) stopAhead(id, work string) (*stopAhead, error) {
	f := t.freezerOf(id)
	if f == nil || f.frozenNow() || !canRun(work) || os.Getenv(criuConfigVariable) != "" {
		return nil, nil
	}
	// The configuration is split at white space, and knows no way to quote it; the shell would need one for a quote.
	if strings.ContainsAny(work, " \t\n\"#") || strings.Contains(f.dir, "'") {
		return nil, nil
	}
	a := &stopAhead{freezer: f, script: filepath.Join(work, "stop-ahead"), config: filepath.Join(work, "stop-ahead.conf")}
	err := os.WriteFile(a.script, []byte(f.script()), 0o700)
	if err == nil {
		err = os.WriteFile(a.config, []byte("action-script "+a.script+"\n"), 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("write script for CRIU: %w", errors.Join(err, a.remove()))
	}
	return a, nil
}

// give has the CRIU that cmd starts run the script. A nil a does nothing.
func (a *stopAhead) give(cmd *exec.Cmd) {
	if a != nil {
		cmd.Env = append(cmd.Environ(), criuConfigVariable+"="+a.config)
	}
}

// release lets processes go on that are still there when the dump is over: CRIU leaves a cgroup as it found it, which was frozen. A nil a does nothing.
func (a *stopAhead) release() error {
	if a == nil {
		return nil
	}
	return errors.Join(a.freezer.thaw(), a.remove())
}

func (a *stopAhead) remove() error {
	var errs []error
	for _, path := range []string{a.script, a.config} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// A freezer is the cgroup of a container as a place where it can be frozen.
type freezer struct {
	dir            string
	file           string // in dir, that is written
	frozen, thawed string // what is written
	asked          string // file in dir that says whether all stand still
	stands         string // its line that says so
}

// shell is what runs the script.
const shell = "/bin/sh"

// canRun reports whether scripts in the folder can be run: where they cannot, CRIU would give up.
func canRun(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Flags&unix.ST_NOEXEC == 0 && unix.Access(shell, unix.X_OK) == nil
}

// freezerOf returns where a container can be frozen, nil if nowhere, or if runc does not know it.
func (t *Tools) freezerOf(id string) *freezer {
	data, err := os.ReadFile(filepath.Join(t.stateDir(), id, "state.json"))
	if err != nil {
		return nil
	}
	var state struct {
		// Absolute paths by controller; that of cgroup v2 has an empty name.
		CgroupPaths map[string]string `json:"cgroup_paths"`
	}
	if err := json.Unmarshal(data, &state); err != nil {
		return nil
	}
	if dir := state.CgroupPaths["freezer"]; dir != "" {
		return freezerV1(dir)
	}
	if dir := state.CgroupPaths[""]; dir != "" {
		return freezerV2(dir)
	}
	return nil
}

func freezerV1(dir string) *freezer {
	return &freezer{dir: dir, file: "freezer.state", frozen: "FROZEN", thawed: "THAWED", asked: "freezer.state", stands: "FROZEN"}
}

func freezerV2(dir string) *freezer {
	return &freezer{dir: dir, file: "cgroup.freeze", frozen: "1", thawed: "0", asked: "cgroup.events", stands: "frozen 1"}
}

// script freezes the cgroup at the stage before a dump, and waits for that, for a second at most: then it is CRIU's turn to find out why. It starts
// no program, but to wait if 100 questions are not enough.
func (f *freezer) script() string {
	return fmt.Sprintf(`#!`+shell+`
[ "$CRTOOLS_SCRIPT_ACTION" = pre-dump ] || exit 0
cd '%s' && echo %s >%s || exit 0
n=0
while [ $n -lt 200 ]; do
	while read -r state; do
		[ "$state" = '%s' ] && exit 0
	done <%s
	n=$((n + 1))
	[ $n -lt 100 ] || sleep 0.01
done
exit 0
`, f.dir, f.frozen, f.file, f.stands, f.asked)
}

// frozenNow reports whether somebody has frozen the cgroup, who then is to let it go on.
func (f *freezer) frozenNow() bool {
	data, err := os.ReadFile(filepath.Join(f.dir, f.asked))
	return err == nil && slices.Contains(strings.Split(string(data), "\n"), f.stands)
}

// thaw lets the processes of the cgroup go on, if it is still there.
func (f *freezer) thaw() error {
	file, err := os.OpenFile(filepath.Join(f.dir, f.file), os.O_WRONLY, 0)
	if err == nil {
		_, err = file.WriteString(f.thawed)
		err = errors.Join(err, file.Close())
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) { // ENODEV: it went meanwhile
		return nil
	}
	return err
}
