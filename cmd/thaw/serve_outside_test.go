package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"thaw/function"
)

func TestTheWorldOutsideIsThereAfterTheBoot(t *testing.T) {
	f := newServed(t)
	device := harmlessDevice(t)
	flags, address := bridgeFlags()
	f.serveFunctions(t, append(flags, noIdle, "--freeze-after=-1", "--device", device)...)
	f.deploy(t, "outside")
	m := newMeeting(t, address, 1)
	parameters := map[string]string{
		"Network": fmt.Sprintf(`{"host": %q, "port": %d}`, m.host, m.port), "Device": fmt.Sprintf(`{"path": %q}`, device),
	}
	parameters["NoDevice"], parameters["NeverFrozen"] = parameters["Device"], parameters["Device"]

	// Each cold, then restored.
	for _, boot := range []function.BootKind{function.BootCold, function.BootRestored} {
		t.Run(string(boot), func(t *testing.T) {
			network := f.askWith(t, parameters["Network"], "outside/Network.report")
			expectBoot(t, network, boot)
			of := valueOf[struct {
				Before       map[string]string
				Entered, Now string
				Child        string
				Interfaces   []string
			}](t, network)
			if of.Before["connect"] != "OSError 101" || of.Before["lookup"] != "gaierror -3" || !strings.Contains(of.Before["child"], "Network is unreachable") {
				t.Errorf("before the boot attempts came to %q, want that each fails at once", of.Before)
			}
			if of.Entered != "hello\n" || of.Now != "hello\n" || of.Child != "" || len(of.Interfaces) != 2 {
				t.Errorf("after the boot: %+v", of)
			}

			type look struct {
				Visible *string
				There   bool
				Opens   *string
			}
			const loaded, entered, now = 0, 1, 2
			with := f.askWith(t, parameters["Device"], "outside/Device.report")
			expectBoot(t, with, boot)
			looks := valueOf[[]look](t, with)
			if l := looks[loaded]; l.There || l.Visible == nil || *l.Visible != "" {
				t.Errorf("before the boot: %s", with.Value)
			}
			for _, l := range looks[entered:] {
				if !l.There || l.Visible != nil || l.Opens != nil {
					t.Errorf("after the boot: %s", with.Value)
				}
			}
			without := f.askWith(t, parameters["NoDevice"], "outside/NoDevice.report")
			if l := valueOf[[]look](t, without)[now]; l.There || l.Visible != nil {
				t.Errorf("a function that asked for no GPU: %s", without.Value)
			}
			open := f.askWith(t, parameters["NeverFrozen"], "outside/NeverFrozen.report")
			for _, l := range valueOf[[]look](t, open) {
				if !l.There || l.Visible != nil || l.Opens != nil {
					t.Errorf("a function that is never frozen: %s", open.Value)
				}
			}
		})
		if boot == function.BootCold {
			for _, object := range []string{"Network", "Device", "NoDevice"} {
				f.freezeNow(t, "outside/"+object, parameters[object])
			}
		}
	}
	line := f.awaitLog(t, "outside/Network", fmt.Sprintf("no network before the freeze (%s:%d)", m.host, m.port))
	for _, want := range []string{"available after the restore", "@thaw.enter(snap=False)", "app.py:", "in connect"} {
		if !strings.Contains(line.Text, want) {
			t.Errorf("the log says %q, without %q", line.Text, want)
		}
	}
}

// harmlessDevice returns the path of a device node that containers do not have of themselves, and that can be opened without a consequence.
func harmlessDevice(t *testing.T) string {
	t.Helper()
	for _, path := range []string{"/dev/loop-control", "/dev/fuse", "/dev/ppp"} {
		if st, err := os.Stat(path); err == nil && st.Mode()&os.ModeCharDevice != 0 {
			return path
		}
	}
	t.Skip("needs a device that does no harm: modprobe loop")
	return ""
}
