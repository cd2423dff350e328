package launcher

import (
	"path/filepath"

	"github.com/curi-store/curi/cas"
)

// guardTrees says which inputs the command is to see by the mount's faster
// connection for trees of small files.
type guardTrees struct {
	Mount     string `json:"mount"`     // the mount's directory
	Namespace string `json:"namespace"` // [cas.Mount.Trees]
	// Inputs maps an input's place below Mount to its tree. Whether a tree is
	// one of small files only the mount knows.
	Inputs map[string]cas.Digest `json:"inputs"`
}

// trees is what the guard is to try; nil if there is nothing.
func (r *run) trees() *guardTrees {
	if r.mount == nil || r.mount.Trees == "" {
		return nil
	}
	t := &guardTrees{Mount: r.mount.Dir, Namespace: r.mount.Trees, Inputs: map[string]cas.Digest{}}
	for _, in := range r.p.In {
		if !in.Writable && r.s.HasTree(in.Tree) {
			t.Inputs[filepath.Join(r.places.Root, "in", in.Name)] = in.Tree
		}
	}
	if len(t.Inputs) == 0 {
		return nil
	}
	return t
}
