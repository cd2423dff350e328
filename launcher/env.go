package launcher

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/curi-store/curi/stages"
)

// neededByAll are the variables that --clean-env keeps: what every program
// needs, and which devices a scheduler gave to this job.
var neededByAll = []string{
	"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR",
	"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
	"CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
	"GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK",
}

// environment is a list of NAME=VALUE with a lookup.
type environment []string

// get returns the last value of a variable, which is the one that counts.
func (e environment) get(name string) (string, bool) {
	for i := len(e) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(e[i], name+"="); ok {
			return v, true
		}
	}
	return "", false
}

// set replaces a variable.
func (e *environment) set(name, value string) {
	e.remove(func(n string) bool { return n == name })
	*e = append(*e, name+"="+value)
}

func (e *environment) remove(which func(name string) bool) {
	*e = slices.DeleteFunc(slices.Clone(*e), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return which(name)
	})
}

// attempt is what the environment tells a command of its run.
type attempt struct {
	number   int
	resumed  bool            // a work directory holds what an earlier try left
	snapshot stages.Snapshot // that the work directories are from; zero: none
	from     string          // the run of another key that left it; "" if it is this key's
	copied   stages.Snapshot // that what it left was copied from; zero: from its work directories
	params   string          // path of the JSON file
	meta     string          // path of the file to append to
	tty      bool
}

// commandEnv is the environment of the command: what it inherits, what the
// stage names, and what Curi tells.
func commandEnv(inherited []string, p *stages.Plan, pl stages.Places, a attempt, argv []string) environment {
	env := environment(slices.Clone(inherited))
	inductor := inductorCache(env)
	// Those of an outer stage are not this one's.
	env.remove(func(n string) bool { return strings.HasPrefix(n, "CURI_") && n != "CURI_STORE" })
	if p.CleanEnv {
		named := map[string]bool{}
		for _, v := range p.EnvBound {
			named[v.Name] = true
		}
		env.remove(func(n string) bool {
			return !named[n] && !slices.Contains(neededByAll, n) && !strings.HasPrefix(n, "LC_") &&
				!stages.IsRankVariable(n) && n != "CURI_STORE"
		})
	}
	for _, v := range p.EnvBound {
		if v.Value != nil {
			env.set(v.Name, *v.Value)
		}
	}
	env.set("CURI_RUN", pl.Run)
	env.set("CURI_ROOT", pl.Root)
	env.set("CURI_ATTEMPT", strconv.Itoa(a.number))
	if a.resumed {
		env.set("CURI_RESUME", "1")
	}
	for kind, paths := range map[string]map[string]string{"IN": pl.In, "OUT": pl.Out, "WORK": pl.Work} {
		for name, path := range paths {
			env.set(stages.EnvironmentName(kind, name), path)
		}
	}
	for _, q := range p.Params {
		env.set(stages.EnvironmentName("PARAM", q.Name), q.Raw)
	}
	for _, in := range p.In {
		// In order: of keys that meet in one variable always the same one counts.
		for _, k := range slices.Sorted(maps.Keys(in.Meta)) {
			env.set(stages.EnvironmentName("META", in.Name, k), in.Meta[k])
		}
	}
	env.set("CURI_PARAMS", a.params)
	env.set("CURI_META", a.meta)
	env.set("TMPDIR", pl.Tmp)
	if _, ok := env.get("TORCHINDUCTOR_CACHE_DIR"); !ok {
		env.set("TORCHINDUCTOR_CACHE_DIR", inductor)
	}
	tee := rankLogs(&env, argv, pl.Logs)
	if _, ok := env.get("PYTHONUNBUFFERED"); !ok && (!a.tty || tee) {
		env.set("PYTHONUNBUFFERED", "1")
	}
	slices.Sort(env)
	return env
}

var notInUserDir = regexp.MustCompile(`[\\/:*?"<>|]`)

// inductorCache is where PyTorch's compiler would keep its cache, were TMPDIR
// not the run's own: a cache that is lost with every run is none.
func inductorCache(env environment) string {
	dir, ok := env.get("TMPDIR")
	if !ok || dir == "" {
		dir = "/tmp"
	}
	name := ""
	for _, n := range []string{"LOGNAME", "USER", "LNAME", "USERNAME"} {
		if v, _ := env.get(n); v != "" {
			name = v
			break
		}
	}
	if name == "" {
		name = fmt.Sprintf("uid_%d", os.Getuid())
		if u, err := user.Current(); err == nil && u.Username != "" {
			name = u.Username
		}
	}
	return filepath.Join(dir, "torchinductor_"+notInUserDir.ReplaceAllString(name, "_"))
}

// rankLogs makes torchrun keep what each rank writes below logs, and still
// show it as it comes; it reports whether it did. A user who chose anything
// about logs, by variables or by options, chose all of it.
//
// With --tee torchrun redirects each rank into a file and follows that: the
// ranks no longer write to a terminal, and lines begin with "[default0]:".
func rankLogs(env *environment, argv []string, logs string) bool {
	for _, n := range []string{"PET_LOG_DIR", "PET_REDIRECTS", "PET_TEE"} {
		if _, ok := env.get(n); ok {
			return false
		}
	}
	options, _ := torchrunOptions(argv)
	for _, n := range []string{"log-dir", "redirects", "r", "tee", "t"} {
		if _, ok := options[n]; ok {
			return false
		}
	}
	env.set("PET_LOG_DIR", logs)
	env.set("PET_TEE", "3")
	return true
}

// writeParams writes every parameter, the operational ones too, as one JSON
// object with its keys in order.
func writeParams(path string, params []stages.Param) error {
	values := map[string]json.RawMessage{}
	for _, q := range params {
		values[q.Name] = q.JSON()
	}
	b, err := json.MarshalIndent(values, "", "  ")
	if err != nil {
		return fmt.Errorf("write the parameters: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the parameters: %w", err)
	}
	return nil
}
