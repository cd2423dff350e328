package stages

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The kinds of what a stage may ask for, and keeps to itself while it runs.
const (
	GPUs = "gpus"
	CPUs = "cpus"
)

var resourceKinds = []string{GPUs, CPUs}

const maxResource = 4096

// resources returns how much of each kind a stage asks for with parameters: no
// GPU is something to ask for as well.
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
		if n > 0 || kind == GPUs {
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

// LauncherOptions returns the options of the stage's launcher with parameters,
// a copy.
func (st *FileStage) LauncherOptions(params []Param) (map[string]string, error) {
	options := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(st.Launcher.Options)) {
		text := st.Launcher.Options[name]
		// Others have a meaning to sbatch, as {1-4} in a list of hosts.
		if strings.Contains(text, "{param.") {
			var err error
			if text, err = expandRef(text, params); err != nil {
				return nil, err
			}
		}
		options[name] = text
	}
	return options, nil
}

// LauncherOptions returns the options of a stage's launcher with the parameters
// of each set, the same ones once.
func (f *File) LauncherOptions(st *FileStage) ([]map[string]string, error) {
	var all []map[string]string
	for _, set := range f.Sets {
		options, err := st.LauncherOptions(st.with(set.Params))
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(all, func(o map[string]string) bool { return maps.Equal(o, options) }) {
			all = append(all, options)
		}
	}
	return all, nil
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
