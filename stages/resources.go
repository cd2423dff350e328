package stages

import (
	"maps"
	"slices"
	"strconv"
)

// The kinds of what a stage may ask for, and keeps to itself while it runs.
const (
	GPUs = "gpus"
	CPUs = "cpus"
)

var resourceKinds = []string{GPUs, CPUs}

const maxResource = 4096

// resources returns how much of each kind a stage asks for with parameters.
func (st *FileStage) resources(params []Param) (map[string]int, error) {
	want := map[string]int{}
	for _, kind := range slices.Sorted(maps.Keys(st.Resources)) {
		text, err := expandRef(st.Resources[kind], params)
		if err != nil {
			return nil, err
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > maxResource {
			return nil, usagef("stage %s: resources: %s: %q is no whole number up to %d", st.Name, kind, text, maxResource)
		}
		if n > 0 {
			want[kind] = n
		}
	}
	return want, nil
}

// checkResources checks what stages ask for with every set's parameters.
func (f *File) checkResources(r *fileReader) {
	for _, st := range f.Stages {
		if len(st.Resources) == 0 {
			continue
		}
		for _, set := range f.Sets {
			if _, err := st.resources(st.with(set.Params)); err != nil {
				r.problem(st.at["resources"], "%v", err)
				break
			}
		}
	}
}

// with returns the stage's parameters with the values of a set in their place.
func (st *FileStage) with(values []Param) []Param {
	params := slices.Clone(st.Params)
	for _, v := range values {
		for i, q := range params {
			if q.Name == v.Name {
				v.Operational = q.Operational
				params[i] = v
			}
		}
	}
	return params
}
