package main

import (
	"github.com/spf13/cobra"
)

// settingJSON is an element of what `curi config --json` prints.
type settingJSON struct {
	Name  string `json:"name"`
	Value string `json:"value"` // "" is unset
	From  string `json:"from"`
	Usage string `json:"usage"`
}

func newConfig(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "config [NAME]",
		Short: "Show settings and where each comes from",
		Long: `Show every setting, its value and where the value comes from. An option beats an
environment variable, which beats .curi/config.yaml of the project, which beats
config.yaml in $XDG_CONFIG_HOME/curi (or ~/.config/curi), which beats the default.

Both files are YAML, one setting a line:

  store: /data/curi
  keep: 60d          # unnamed stage results
  keep_work: 7d      # work directories
  max_size: 500G
  min_free: 50G`,
		Example: `  curi config
  curi config store
  curi config --json`,
		Args: nargs(0, 1, "at most one NAME"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return configNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error { return a.showConfig(args) },
	}
}

func (a *app) showConfig(args []string) error {
	cfg, err := a.config()
	if err != nil {
		return err
	}
	if len(args) == 1 {
		k, ok := lookupKey(args[0])
		if !ok {
			return usagef("there is no setting %q%s", args[0], didYouMean(args[0], configNames()))
		}
		text, from := cfg.get(k.name)
		if a.json {
			return a.printJSON(settingJSON{k.name, text, from, k.usage})
		}
		return a.printf("%s\n", text)
	}
	list := []settingJSON{}
	var rows [][]string
	for _, k := range configKeys {
		text, from := cfg.get(k.name)
		list = append(list, settingJSON{k.name, text, from, k.usage})
		rows = append(rows, []string{k.name, orDash(text), from, k.usage})
	}
	if a.json {
		return a.printJSON(list)
	}
	return a.table([]string{"SETTING", "VALUE", "FROM", "MEANING"}, rows)
}
