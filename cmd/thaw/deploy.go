package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"thaw/checkpoint"
	"thaw/cmd/internal/cli"
	"thaw/cpu"
	"thaw/function/describe"
	"thaw/function/registry"
	"thaw/function/sdk"
	"thaw/function/version"
)

// deployFlags are the flags of deploy.
type deployFlags struct {
	state, root string
	cpu         string
	hideCPU     []string
}

func newDeploy(a *app) *cobra.Command {
	d := &deployFlags{}
	cmd := &cobra.Command{
		Use:   "deploy FILE",
		Short: "Register a version of a function app",
		Long: `Registers the app that a Python file declares: its code is imported once, in a sandbox without a network, in the root file
system that its instances will have, and says which functions there are. Files that it imports from its folder, and those
that it declares, are copied.

A version is what its files, its declared dependencies and data, the root file system, the runtime and the features of the
CPU are. Whatever changes of these makes a new version, and by and by new snapshots; without a change nothing happens.

--cpu keeps the processes to a set of features, so that their snapshots can be restored on older machines: a level
(x86-64-v2, x86-64-v3, x86-64-v4), names from /proc/cpuinfo, or both, with commas between.`,
		Example: `  thaw deploy app.py --root /srv/debian
  thaw deploy app.py --root oci:/srv/image:latest --cpu x86-64-v3,aes,pclmulqdq,sha_ni
  thaw deploy app.py --root /srv/debian --json`,
		Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error { return a.deploy(cmd.Context(), d, args[0]) },
	}
	f := cmd.Flags()
	stateFlag(cmd, &d.state)
	f.StringVar(&d.root, "root", cli.Env(cli.EnvRoot, ""), "root file system: a folder, or oci:LAYOUT[:TAG] ($"+cli.EnvRoot+")")
	f.StringVar(&d.cpu, "cpu", cpu.Native, "features of the CPU that the processes may use")
	f.StringSliceVar(&d.hideCPU, "hide-cpu", nil, "features of this host's CPU that are not to be used, as if it had none of them")
	a.toolFlags(cmd)
	return cmd
}

// stateFlag adds the flag that names the registry's folder.
func stateFlag(cmd *cobra.Command, state *string) {
	cmd.Flags().StringVar(state, "state", cli.Env(cli.EnvState, cli.DefaultState), "folder of the functions ($"+cli.EnvState+")")
}

// oneFile is Args for a command that takes one Python file.
func oneFile(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s takes one Python file, and got %d arguments", cmd.CommandPath(), len(args))
	}
	return nil
}

func (a *app) deploy(ctx context.Context, d *deployFlags, file string) error {
	if d.root == "" {
		return cli.Usagef("--root is missing: the root file system that the functions run in")
	}
	host, err := cpu.ThisHost(d.hideCPU...)
	if err != nil {
		return &cli.Error{Code: cli.Usage, Err: err}
	}
	may, err := host.Confine(d.cpu)
	if err != nil {
		return &cli.Error{Code: cli.Usage, Err: fmt.Errorf("--cpu %w", err)}
	}
	if _, err := os.Stat(file); err != nil {
		return err
	}
	where, err := parseRoot(d.root)
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	reg, err := registry.Open(d.state, &registry.Options{Create: true})
	if err != nil {
		return err
	}
	root, err := openRoot(ctx, where, reg.Dir())
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	where.Digest = root.Digest()
	v, folder, err := a.describeVersion(ctx, reg, file, where, root.Lowers(), &may)
	if err != nil {
		return a.explainAuthor(err)
	}
	defer folder.Close()
	done, err := reg.Deploy(ctx, v, folder.FS())
	if err != nil {
		return err
	}
	stats, err := reg.VersionStats(v.App(), v.Key)
	if err != nil {
		return err
	}
	out := newDeployment(v, done, stats)
	return a.print(out, out.write)
}

// describeVersion makes a version of the app in the file. The caller closes the app's folder.
func (a *app) describeVersion(ctx context.Context, reg *registry.Registry, file string, root version.Root, lowers []string, may *cpu.Confinement) (_ *version.Version, _ *os.Root, err error) {
	files, err := sdkFiles()
	if err != nil {
		return nil, nil, err
	}
	sdkDir, sdkDigest, err := sdk.Unpack(files, reg.SDKs())
	if err != nil {
		return nil, nil, err
	}
	o := describe.Options{File: file, Lowers: lowers, SDK: sdkDir}
	for k, v := range may.Environment() {
		o.Environment = append(o.Environment, k+"="+v)
	}
	if a.verbose {
		o.Log = a.stderr
	}
	said, err := describe.Run(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	real, err := filepath.EvalSymlinks(file)
	if err != nil {
		return nil, nil, err
	}
	folder, err := os.OpenRoot(filepath.Dir(real))
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, folder.Close())
		}
	}()
	found, err := version.Collect(folder.FS(), said)
	if err != nil {
		return nil, nil, err
	}
	v, err := version.New(version.Content{
		Description: *said, Entry: filepath.Base(real), Code: found.Code, Data: found.Data, Lock: found.Lock, Root: root,
		Runtime: version.Runtime{
			Python: said.Python, SDK: said.SDK, SDKDigest: sdkDigest, CRIU: a.criuVersion(ctx), Snapshot: version.SnapshotFormat,
		},
		CPU: *may,
	})
	return v, folder, err
}

// criuVersion returns the version of CRIU; empty if there is none, and then there are no snapshots either.
func (a *app) criuVersion(ctx context.Context) string {
	v, err := a.tools().CRIUVersion(ctx)
	if err != nil && !errors.Is(err, checkpoint.ErrToolMissing) {
		a.log().Warn("CRIU does not say its version", "err", err)
	}
	return v
}

// explainAuthor shows what went wrong in the author's code as Python would.
func (a *app) explainAuthor(err error) error {
	var author *version.AuthorError
	if !errors.As(err, &author) || author.Traceback == "" {
		return err
	}
	if a.json {
		return fmt.Errorf("%w\n%s", err, author.Traceback)
	}
	_, printErr := io.WriteString(a.stderr, author.Traceback) // its last line is the message
	return errors.Join(fmt.Errorf("nothing is deployed: the app's own code failed with %s", author.Type), printErr)
}
