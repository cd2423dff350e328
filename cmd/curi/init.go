package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/stages"
)

// initJSON is what `curi init --json` prints.
type initJSON struct {
	File    string   `json:"file"`
	Stages  []string `json:"stages"`
	Scripts []string `json:"scripts"` // that they run
}

func newInit(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "Write a curi.yaml to begin with",
		Long: `Write a commented curi.yaml into the current directory, with a stage for each Python
script that takes options by argparse or click, and for each notebook: what its options
are for is guessed by their names, so read it before it is run. One that is of several
processes (init_process_group, LOCAL_RANK) is started by torchrun. A curi.yaml that is
there already stays.`,
		Example: "  curi init && $EDITOR curi.yaml && curi stage check",
		Args:    nargs(0, 0, "no argument"),
		RunE:    func(_ *cobra.Command, _ []string) error { return a.init() },
	}
}

func (a *app) init() error {
	dir, err := currentDir()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, stages.FileName)
	scripts, err := stages.FindScripts(dir)
	if err != nil {
		return err
	}
	text := stages.Starter(filepath.Base(dir), scripts)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return usagef("there is a %s in %s already: curi stage check tells what is wrong with it", stages.FileName, dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.WriteString(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("write %s: %w", path, err)
	}
	for up := filepath.Dir(dir); up != filepath.Dir(up); up = filepath.Dir(up) {
		if _, err := os.Lstat(filepath.Join(up, stages.FileName)); err == nil {
			a.warn("warning: %s has a %s too: commands in %s and below use the new one", up, stages.FileName, dir)
			break
		}
	}
	out := initJSON{File: path, Stages: []string{}, Scripts: []string{}}
	for _, s := range scripts {
		out.Stages, out.Scripts = append(out.Stages, s.Stage), append(out.Scripts, s.Path)
	}
	if a.json {
		return a.printJSON(out)
	}
	found := "an example of a stage, as no notebook and no Python script with options was found"
	if len(scripts) > 0 {
		found = count(int64(len(scripts)), "stage") + " for what was found"
	}
	return a.printf("wrote %s with %s; read it, then: curi stage check\n", stages.FileName, found)
}
