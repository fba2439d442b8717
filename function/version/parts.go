package version

import (
	"crypto/sha256"
	"fmt"
	"hash"
)

// Parts are the digests of what a version is made of.
type Parts struct {
	Code         Digest `json:"code"`         // paths, modes and contents of the code's files
	Dependencies Digest `json:"dependencies"` // the lock file's content, the root file system's digest
	Data         Digest `json:"data"`         // paths and contents of the data files
	Runtime      Digest `json:"runtime"`
	CPU          Digest `json:"cpu"`
}

// The text that is hashed is part of the format, do not change it: a key that is computed in another way fits no snapshot. Each line
// ends with '\n', strings are quoted as Go does, so that no two contents have the same text.
const (
	codeHead         = "thaw function code 1\n"
	dependenciesHead = "thaw function dependencies 1\n"
	dataHead         = "thaw function data 1\n"
	runtimeHead      = "thaw function runtime 1\n"
	cpuHead          = "thaw function cpu 1\n"
	keyHead          = "thaw function version 1\n"
	templateHead     = "thaw function template 1\n"
)

func (c *Content) parts() Parts {
	return Parts{
		Code: c.codeDigest(), Dependencies: c.dependenciesDigest(), Data: c.dataDigest(), Runtime: c.runtimeDigest(), CPU: c.cpuDigest(),
	}
}

func (c *Content) codeDigest() Digest {
	return hashText(codeHead, func(h hash.Hash) {
		fmt.Fprintf(h, "entry %q\n", c.Entry)
		writeFiles(h, c.Code)
	})
}

func (c *Content) dependenciesDigest() Digest {
	return hashText(dependenciesHead, func(h hash.Hash) {
		if c.Lock != nil {
			fmt.Fprintf(h, "lock %s\n", c.Lock.SHA256)
		}
		fmt.Fprintf(h, "root %q\n", c.Root.Digest)
	})
}

func (c *Content) dataDigest() Digest {
	return hashText(dataHead, func(h hash.Hash) { writeFiles(h, c.Data) })
}

func (c *Content) runtimeDigest() Digest {
	return hashText(runtimeHead, func(h hash.Hash) {
		r := &c.Runtime
		fmt.Fprintf(h, "python %q\nsdk %q %s\ncriu %q\nsnapshot %d\n", r.Python, r.SDK, r.SDKDigest, r.CRIU, r.Snapshot)
	})
}

func (c *Content) cpuDigest() Digest {
	return hashText(cpuHead, func(h hash.Hash) {
		fmt.Fprintf(h, "masked %t\n", c.CPU.Masked)
		for _, f := range c.CPU.Features {
			fmt.Fprintf(h, "%s\n", f)
		}
	})
}

func (p *Parts) key() Key {
	return Key(hashText(keyHead, func(h hash.Hash) {
		fmt.Fprintf(h, "code %s\ndependencies %s\ndata %s\nruntime %s\ncpu %s\n", p.Code, p.Dependencies, p.Data, p.Runtime, p.CPU)
	}))
}

// TemplateKey names a snapshot that versions share: a process in the version's root file system that has imported the modules, in
// that order. It has nothing of the app's own code.
func (v *Version) TemplateKey(modules []string) Key {
	return Key(hashText(templateHead, func(h hash.Hash) {
		fmt.Fprintf(h, "root %q\nruntime %s\ncpu %s\n", v.Root.Digest, v.Parts.Runtime, v.Parts.CPU)
		for _, m := range modules {
			fmt.Fprintf(h, "module %q\n", m)
		}
	}))
}

func writeFiles(h hash.Hash, files []File) {
	for _, f := range files {
		mode := "file"
		if f.Executable {
			mode = "executable"
		}
		fmt.Fprintf(h, "%s %q %d %s\n", mode, f.Path, f.Bytes, f.SHA256)
	}
}

func hashText(head string, write func(hash.Hash)) (d Digest) {
	h := sha256.New()
	h.Write([]byte(head))
	write(h)
	h.Sum(d[:0])
	return d
}
