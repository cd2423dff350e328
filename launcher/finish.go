package launcher

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
	"github.com/curi-store/curi/stages"
)

// finish seals what the command wrote if all is well, writes the run's record
// and log, publishes, and closes the place. Only after all of it is durable
// does anything point at it.
func (r *run) finish(ctx context.Context, out *outcome) (*Result, error) {
	var done []sealed
	if out.status == stages.Succeeded {
		if changed := r.p.ChangedCode(); len(changed) > 0 {
			r.warn("%s changed while the command ran: the result is that of the code as it was at the start", strings.Join(changed, ", "))
		}
		var err error
		done, err = r.sealOrStop(ctx)
		if err == nil && r.lead != nil {
			done, err = r.unite(ctx, done)
		}
		if err != nil {
			*out = r.failed(err)
		}
	} else if err := r.takeFrom(ctx); err != nil {
		// The next try needs the paths absent; what is there may be all that
		// somebody has of this one.
		r.warn("%s", oneLine(err))
	}
	defer func() {
		for _, s := range done {
			s.added.Release()
		}
	}()
	// Sealing takes its time.
	if err := r.lost(); err != nil {
		r.sayKept(done)
		out.err = r.abandon(ctx, *out, err)
		return nil, out.err
	}
	if out.status != stages.Succeeded { // else seal has closed it
		if err := r.place.SetSealing(ctx, true); err != nil {
			r.warn("%s", oneLine(err))
		}
	}
	r.maskRankLogs()
	if err := r.log.close(); err != nil {
		r.warn("the log is not whole: %s", oneLine(err))
	}
	if err := r.settle(ctx, out, done); err != nil {
		switch {
		case out.err != nil:
		case out.status != stages.Succeeded: // the status stays the command's
			r.warn("%s", oneLine(err))
		default:
			out.err, out.status, out.exit = err, stages.Failed, exitTrouble
		}
		// The run must not say that it runs, whatever happened; its tree holds
		// what was sealed.
		r.info.Status, r.info.Exit, r.info.Ended = out.status, out.exit, time.Now().UTC()
		_ = stages.PutRun(ctx, r.s, r.info, r.info.Tree)
	}
	r.snapshots.settle(ctx, out.status)
	fault.At(fault.RunPublished)
	if r.lost() == nil {
		r.closePlace(ctx, out)
	}
	fault.At(fault.RunClosed)
	if out.status != stages.Succeeded {
		r.summary(ctx, out)
		r.sayKept(done)
		return r.result(out.exit), nil
	}
	outputs, err := r.outputsOf(ctx, out.result)
	if err != nil {
		return nil, fmt.Errorf("read the result of %s: %w", r.id, err)
	}
	if err := r.publishNames(ctx, r.id, outputs); err != nil {
		return nil, err
	}
	res := r.result(0)
	res.Outputs = outputs
	r.say("%s succeeded in %s", r.id, time.Since(r.info.Started).Round(100*time.Millisecond))
	return res, nil
}

// sealOrStop seals; a signal still ends that.
func (r *run) sealOrStop(ctx context.Context) ([]sealed, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-r.sig.ctx.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	return r.seal(ctx)
}

// untilSignal is a context that the next signal ends, but for the second of a
// Ctrl-C that comes twice. Slurm repeats its signals, which ask for nothing new.
func (r *run) untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if r.batch != nil {
		return ctx, cancel
	}
	for len(r.sig.more) > 0 {
		<-r.sig.more // it was for the command
	}
	go func() {
		for {
			select {
			case sig := <-r.sig.more:
				if sig == syscall.SIGINT && time.Since(r.lastInt) < secondInt {
					continue
				}
				cancel()
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, cancel
}

// settle stores the run's tree and the refs that name it: the result's last.
func (r *run) settle(ctx context.Context, out *outcome, done []sealed) error {
	r.info.Status, r.info.Exit, r.info.Ended = out.status, out.exit, time.Now().UTC()
	logs, drop, err := r.storeNodeLogs(ctx)
	defer drop()
	if err != nil {
		r.warn("the logs of other nodes are not kept: %s", oneLine(err))
	}
	r.fillRecord(out, done)
	tree, release, err := resultTree(ctx, r.s, done, r.record, logs, func(ctx context.Context) (*cas.Added, error) {
		return r.s.AddPath(ctx, r.logPath(), cas.AddOptions{})
	})
	defer release()
	if err != nil {
		return fmt.Errorf("store the record of %s: %w", r.id, err)
	}
	fault.At(fault.RunStored)
	if err := stages.PutRun(ctx, r.s, r.info, tree); err != nil {
		return err
	}
	fault.At(fault.RunRecorded)
	out.result, r.info.Tree = tree, tree
	if out.status != stages.Succeeded {
		return nil
	}
	res := stages.Result{Run: r.id, Tree: tree}
	r.owe(ctx, res)
	if err := stages.PutResult(ctx, r.s, r.p.Key, res); err != nil {
		return err
	}
	r.dropParts(ctx)
	return nil
}

// owe notes that others are to get a result, before anybody knows of it.
func (e *execution) owe(ctx context.Context, res stages.Result) {
	if e.o.Owe == nil {
		return
	}
	if err := e.o.Owe(ctx, e.p.Key, res); err != nil {
		e.warn("%s", oneLine(err))
	}
	fault.At(fault.RunOwed)
}

// resultTree stores out/, record.json, log.txt and nodeLogs, if there are any, as
// one tree. release ends what keeps its parts from being collected; it is never nil.
func resultTree(ctx context.Context, s *cas.Store, done []sealed, record *stages.Record, logs *cas.Added,
	addLog func(context.Context) (*cas.Added, error)) (tree cas.Digest, release func(), err error) {
	var parts []*cas.Added
	release = func() {
		for _, a := range parts {
			a.Release()
		}
	}
	b, err := record.Encode()
	if err != nil {
		return tree, release, err
	}
	rec, err := s.AddReader(ctx, bytes.NewReader(b), "record.json", cas.AddOptions{})
	if err != nil {
		return tree, release, err
	}
	parts = append(parts, rec)
	log, err := addLog(ctx)
	if err != nil {
		return tree, release, err
	}
	parts = append(parts, log)
	t := &cas.Tree{Entries: []cas.Entry{
		{Name: "log.txt", Kind: cas.KindFile, Size: log.Bytes, Digest: log.Digest},
	}}
	if logs != nil {
		t.Entries = append(t.Entries, cas.Entry{Name: nodeLogs, Kind: cas.KindDir, Size: logs.Bytes, Digest: logs.Tree})
	}
	if len(done) > 0 {
		out, err := addOutputs(ctx, s, nil, done)
		if err != nil {
			return tree, release, err
		}
		parts = append(parts, out)
		t.Entries = append(t.Entries, cas.Entry{Name: "out", Kind: cas.KindDir, Size: out.Bytes, Digest: out.Tree})
	}
	t.Entries = append(t.Entries, cas.Entry{Name: "record.json", Kind: cas.KindFile, Size: rec.Bytes, Digest: rec.Digest})
	whole, err := s.AddTree(ctx, t)
	if err != nil {
		return tree, release, err
	}
	parts = append(parts, whole)
	return whole.Tree, release, nil
}

// closePlace makes the place one of a finished run and tells the mounts:
// out/ shows the sealed result, at the same paths.
func (r *run) closePlace(ctx context.Context, out *outcome) {
	dir := r.place.Dir()
	st := r.state()
	st.Active = false
	if out.status == stages.Succeeded {
		st.Result = out.result
		// What was sealed is in the store now; only directories are left.
		if outs := filepath.Join(dir, "out"); !holds(outs) {
			_ = removeAll(outs)
		}
	}
	if err := r.place.SetState(ctx, st); err != nil {
		r.o.Log.Warn("close the place", "run", r.id, "error", err)
	}
	if err := r.s.Refresh(ctx); err != nil {
		r.o.Log.Warn("tell the mounts", "run", r.id, "error", err)
	}
	for _, d := range []string{"in", "in-rw", "tmp"} {
		_ = removeAll(filepath.Join(dir, d))
	}
}

// maskRankLogs masks secrets in the logs that torchrun kept.
func (r *run) maskRankLogs() {
	if r.log.mask.empty() {
		return
	}
	_ = filepath.WalkDir(filepath.Join(r.dir(), "logs"), func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if err := r.log.mask.maskFile(p); err != nil {
				r.warn("mask secrets in %s: %s", p, oneLine(err))
			}
		}
		return nil
	})
}

// summary is what a person needs after a failure: why, the log, what is kept,
// and the command to try again.
func (r *run) summary(ctx context.Context, out *outcome) {
	word := string(out.status)
	switch {
	case out.status == stages.Interrupted:
		word = "was interrupted"
	case out.status == stages.TimedOut:
		word = out.reason
	case out.reason != "": // an error of Curi's own is said last, by who called
		word += ": " + out.reason
	}
	r.warn("%s %s", r.id, word)
	for _, in := range r.refusedInputs() {
		r.warn("the command tried to write on input %s, which is read-only: --in-rw %s=%s gives it a private writable copy", in.Name, in.Name, in.Ref)
	}
	if hint := r.containerHint(); hint != "" {
		r.warn("%s", hint)
	}
	log := r.logPath()
	if !out.result.IsZero() {
		if view, err := r.s.View(ctx, out.result); err == nil {
			log = filepath.Join(view, "log.txt")
		}
	}
	r.warn("  log: %s", log)
	for _, w := range r.p.Work {
		if dir := filepath.Join(r.place.Dir(), "work", w); holds(dir) {
			r.warn("  work directory %s, kept for the next try: %s", w, dir)
		}
	}
	if found := holds(filepath.Join(r.place.Dir(), "out")); found && out.status != stages.Succeeded {
		r.warn("  what it wrote as outputs, kept (the next try moves it to old/ beside): %s", filepath.Join(r.place.Dir(), "out"))
	}
	r.warn("  command: %s", stages.ShellQuote(r.shown))
}

func holds(dir string) bool {
	found, err := holdsFiles(dir)
	return err == nil && found
}

// containerHint tells why a container daemon, which is another user, may have
// failed on the places.
func (r *run) containerHint() string {
	if r.mount == nil || r.mount.AllowOther {
		return ""
	}
	program := filepath.Base(r.argv[0])
	if !slices.Contains([]string{"docker", "nerdctl", "podman"}, program) {
		return ""
	}
	return fmt.Sprintf("%s may be served by another user, who cannot see this mount: mount the store with curi mount -o allow_other, or use --no-mount", program)
}

// refusedInputs are those that the command was refused to write on. It reads
// that from the log's end: system calls say it to the program alone, and
// programs print it with the path.
func (r *run) refusedInputs() []stages.BoundInput {
	f, err := os.Open(r.logPath())
	if err != nil {
		return nil
	}
	defer f.Close()
	const tail = 1 << 20
	if fi, err := f.Stat(); err == nil && fi.Size() > tail {
		_, _ = f.Seek(-tail, 2)
	}
	var b bytes.Buffer
	_, _ = b.ReadFrom(f)
	var refused strings.Builder
	for line := range strings.Lines(b.String()) {
		for _, word := range []string{"Read-only file system", "read-only file system", "Errno 30", "EROFS", "Permission denied", "Operation not permitted"} {
			if strings.Contains(line, word) {
				refused.WriteString(line)
				break
			}
		}
	}
	var list []stages.BoundInput
	for _, in := range r.p.In {
		// A file of a directory, or the directory itself at the end of a word.
		dir := regexp.MustCompile(regexp.QuoteMeta(filepath.Join(r.places.Root, "in", in.Name)) + `($|[^A-Za-z0-9_-])`)
		if !in.Writable && dir.MatchString(refused.String()) {
			list = append(list, in)
		}
	}
	return list
}
