package stages

import "strings"

// torchrunFlags are the options of torchrun that take no value. All others
// do, so that what follows the script is never taken for torchrun's.
var torchrunFlags = map[string]bool{
	"standalone": true, "m": true, "module": true, "no-python": true, "run-path": true,
	"virtual-local-rank": true, "use-env": true, "h": true, "help": true,
}

// TorchrunOptions splits the words that follow torchrun into its own options,
// with '-' for '_' and without leading dashes, and the script or module with
// what is its own.
func TorchrunOptions(words []string) (options map[string]string, rest []string) {
	options = map[string]string{}
	for i := 0; i < len(words); i++ {
		w := words[i]
		if !strings.HasPrefix(w, "-") || w == "-" || w == "--" {
			return options, words[i:]
		}
		name, value, assigned := strings.Cut(strings.TrimLeft(w, "-"), "=")
		name = strings.ReplaceAll(name, "_", "-")
		switch {
		case assigned || torchrunFlags[name]:
		case !strings.HasPrefix(w, "--") && len(name) > 1: // -t3
			name, value = name[:1], name[1:]
		case i+1 < len(words):
			i++
			value = words[i]
		}
		options[name] = value
	}
	return options, nil
}
