package function

import (
	"encoding/json"
	"fmt"
	"slices"

	"thaw/cpu"
	"thaw/function/instance"
	"thaw/function/sdk"
	"thaw/function/version"
)

// confine returns what processes of a version may use on a host: what the version may, as far as the host has it. What the host has beyond
// is hidden from them, since their snapshots do not name it.
func confine(may *cpu.Confinement, host *cpu.Host) cpu.Confinement {
	return cpu.Confinement{
		Features: may.Features.Minus(may.Features.Minus(host.Features)),
		Masked:   may.Masked || len(host.Hidden) > 0 || !may.Features.HasAll(host.Features),
	}
}

// checkParameters compares the names of parameters with those that the object takes. Their values are the constructor's business.
func checkParameters(o *version.Object, parameters string) error {
	given := make(map[string]json.RawMessage)
	if parameters != "" {
		if err := json.Unmarshal([]byte(parameters), &given); err != nil {
			return fmt.Errorf("%w: %w", ErrParameters, err)
		}
	}
	for name := range given {
		if !slices.ContainsFunc(o.Parameters, func(p version.Parameter) bool { return p.Name == name }) {
			return fmt.Errorf("%w: %s has no parameter %q", ErrParameters, o.Name, name)
		}
	}
	for _, p := range o.Parameters {
		if _, ok := given[p.Name]; p.Required && !ok {
			return fmt.Errorf("%w: %s needs the parameter %q", ErrParameters, o.Name, p.Name)
		}
	}
	return nil
}

// spec returns the kind of container that the pool's instances are.
func (p *pool) spec() instance.Spec {
	spec := instance.Spec{
		Name: instanceName(p.key.app, p.key.object), Root: p.root, Code: p.lease.Code(),
		SDK: sdk.Folder(p.s.opts.Registry.SDKs(), p.record.Runtime.SDKDigest), Env: p.may.Environment(),
		Namespace: p.s.opts.Namespace, Network: p.s.opts.Network, Open: !p.object.Snapshot,
	}
	if p.object.CPU != nil {
		spec.Limits.CPUs = *p.object.CPU
	}
	if p.object.Memory != nil {
		spec.Limits.MemoryBytes = *p.object.Memory
	}
	spec.Limits.PIDs = maxProcesses
	if p.object.GPU != "" {
		spec.Devices = p.s.opts.Devices
	}
	return spec
}

// maxProcesses bounds the processes and threads of an instance, so that one cannot starve the node of them.
const maxProcesses = 4096

// instanceName returns a name that may be that of a container: an app's may begin with what such a name may not.
func instanceName(app, object string) string {
	name := short(app, 20) + "-" + short(object, 20)
	if name[0] == '_' {
		return "fn" + name
	}
	return name
}

func short(s string, n int) string { return s[:min(len(s), n)] }
