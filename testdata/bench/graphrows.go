package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing/fstest"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// A project of many stages: how many there are, and with how many parameter sets.
const (
	graphStages = 1000
	graphSets   = 10
)

// graphRows measure how long it takes to plan a project of which everything is
// cached, the whole process.
func (b *bench) graphRows() error {
	dir := b.path("manystages")
	n := b.many(graphStages)
	if err := writeProject(dir, n); err != nil {
		return err
	}
	if err := b.cacheAll(dir); err != nil {
		return err
	}
	plan := []string{"env", "-C", dir, b.tool("curi"), "stage", "exec", "--all", "--dry-run", "--quiet"}
	out, err := b.output(plan[0], plan[1:]...)
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("0 stage runs to do, %d results cached", n*graphSets); !strings.Contains(out, want) {
		return fmt.Errorf("not everything is cached: %s", out)
	}
	return b.add(5, row{
		what: fmt.Sprintf("plan %d stages with %d parameter sets each, all cached", n, graphSets), want: target{seconds: 1},
		native: side{"`python3 -c pass`", func() (float64, error) { return b.timed([]string{b.python, "-c", "pass"}) }},
		ours:   side{"`curi stage exec --all --dry-run`", func() (float64, error) { return b.timed(plan) }},
	})
}

// writeProject writes a project in which every stage has a script of its own,
// which imports what all have in common, and needs an earlier one.
func writeProject(dir string, n int) error {
	write := func(name, text string) error {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, []byte(text), 0o644)
	}
	var y strings.Builder
	y.WriteString("project: manystages\ncapture: none\nstages:\n")
	for i := range n {
		if err := write(fmt.Sprintf("steps/s%d.py", i), fmt.Sprintf("import sys\nfrom lib import a, b\nprint(%d)\n", i)); err != nil {
			return err
		}
		in, use := "", ""
		if i > 0 {
			in, use = fmt.Sprintf("\n    in: {x: s%d.o}", (i-1)/2), `, "{in.x}"`
		}
		fmt.Fprintf(&y, "  s%d:\n    run: [python3, steps/s%d.py, --lr, \"{param.lr}\", \"{out.o}\"%s]%s\n    code: [\"lib/**\"]\n    params: {lr: 0.5}\n    out: {o: o/}\n", i, i, use, in)
	}
	y.WriteString("parameter_sets:\n  sweep: {grid: {lr: [")
	for i := range graphSets {
		fmt.Fprintf(&y, "0.0%d1, ", i)
	}
	y.WriteString("]}}\n")
	for _, name := range []string{"a", "b", "__init__"} {
		if err := write("lib/"+name+".py", "import os, json\n"); err != nil {
			return err
		}
	}
	return write("curi.yaml", y.String())
}

// cacheAll stores a result for everything in a project, as runs would have left
// them: to run it all would take an hour.
func (b *bench) cacheAll(dir string) error {
	ctx := context.Background()
	s, err := cas.Open(ctx, b.store, cas.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	p, err := stages.FindProject(dir)
	if err != nil {
		return err
	}
	f, err := stages.LoadFile(p)
	if err != nil {
		return err
	}
	g, err := f.Graph(p, stages.Selection{Sets: []string{stages.AllSets}})
	if err != nil {
		return err
	}
	// Beside each other: what a result costs is waiting for the disk.
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := map[*stages.Task]chan struct{}{}
	for _, t := range g.Tasks {
		done[t] = make(chan struct{})
	}
	slots := make(chan struct{}, 32)
	for _, t := range g.Tasks {
		wg.Go(func() {
			defer close(done[t])
			for _, need := range t.Needs {
				<-done[need]
			}
			slots <- struct{}{}
			defer func() { <-slots }()
			if e := cacheOne(ctx, s, g, t); e != nil {
				mu.Lock()
				err = errors.Join(err, e)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return err
}

func cacheOne(ctx context.Context, s *cas.Store, g *stages.Graph, t *stages.Task) error {
	if !t.Ready() {
		return nil // what it needs has failed, and said so
	}
	plan, err := t.Bind(ctx, g, s, os.Environ())
	if err != nil {
		return err
	}
	defer plan.Release()
	id, err := stages.NewRunID(ctx, s, plan.Name)
	if err != nil {
		return err
	}
	run := stages.NewRun(plan, id, 1)
	run.Status, run.Ended = stages.Succeeded, time.Now().UTC()
	rec := stages.NewRecord(plan)
	rec.Run, rec.Status, rec.Started, rec.Ended = id, run.Status, run.Started, run.Ended
	record, err := rec.Encode()
	if err != nil {
		return err
	}
	added, err := s.AddFS(ctx, fstest.MapFS{
		"out/o/result.txt": {Data: []byte(plan.Key.String() + "\n")}, "log.txt": {Data: []byte("done\n")}, "record.json": {Data: record},
	}, cas.AddOptions{})
	if err != nil {
		return err
	}
	defer added.Release()
	if err := stages.PutRun(ctx, s, run, added.Tree); err != nil {
		return err
	}
	res := stages.Result{Run: id, Tree: added.Tree}
	if err := stages.PutResult(ctx, s, plan.Key, res); err != nil {
		return err
	}
	return t.Done(ctx, s, res)
}
