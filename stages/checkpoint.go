package stages

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
)

// ResumeRule says what the checkpoints of a stage are, where that does not show
// by itself: what Glob matches in the work directory Work. It is no part of the
// key.
type ResumeRule struct {
	Work string `json:"work"`
	Glob string `json:"glob"` // relative to the work directory, with ** for any directories
}

// check refuses a rule that can never hold.
func (r *ResumeRule) check(work []string) error {
	switch {
	case !slices.Contains(work, r.Work):
		return usagef("resume: there is no work directory %q%s", r.Work, suggest(r.Work, work, "%s"))
	case r.Glob == "" || !doublestar.ValidatePattern(r.Glob):
		return usagef("resume: %q is not a valid glob", r.Glob)
	case filepath.IsAbs(r.Glob) || slices.Contains(strings.Split(r.Glob, "/"), ".."):
		return usagef("resume: the glob %q leads out of the work directory %s", r.Glob, r.Work)
	}
	return nil
}

// CheckpointSearch says where a stage's checkpoints are looked for.
type CheckpointSearch struct {
	Dir  string // that of the work directories
	Work []string
	Rule *ResumeRule // nil: by their form alone
	// After passes over what was not changed after that time, unread.
	After time.Time
	// BeingWritten says whether somebody has a file open for writing; nil is
	// nobody.
	BeingWritten func(path string) bool
}

// Checkpoint is a file or directory that training can go on from.
type Checkpoint struct {
	Path string
	Time time.Time // when its content was last changed

	was looked
}

// Unchanged reports whether the checkpoint is still as it was found.
func (c Checkpoint) Unchanged() bool {
	now, _ := (&checkpointFinder{}).look(c.Path)
	return now == c.was
}

// Newest returns the newest complete checkpoint, for {resume}; the zero
// Checkpoint if there is none. Complete means that nobody holds it open for
// writing and:
//
//   - a .ckpt, .pt, .pth or .pth.tar file is what torch.save writes, to its last
//     byte: a zip archive, or the form of before that ends with its last
//     storage; a .safetensors file has the length that its header tells;
//   - a directory of torch.distributed.checkpoint has .metadata and the files
//     that it names, as long as it says, and not written after it;
//   - checkpoint-N of the Hugging Face trainer has trainer_state.json, and the
//     files beside it are complete;
//   - one that Accelerate wrote has the random state of its ranks, and all files
//     in it are whole;
//   - a directory with the index of a model in several files has them;
//   - one that DeepSpeed wrote has the files that its "latest" means.
//
// What is one file of several is no checkpoint by itself.
//
// With a rule, what it matches is a checkpoint, and nothing else: what has one of
// these forms must be complete as above, in a directory too, any other only at
// rest.
//
// Newest is by the time its content was last changed. Hidden files and
// symbolic links are passed over. A directory that does not exist is empty.
// Memory is bounded, whatever the files hold.
func (s CheckpointSearch) Newest() (Checkpoint, error) {
	f := checkpointFinder{search: s}
	for _, w := range s.Work {
		if s.Rule != nil && s.Rule.Work != w {
			continue
		}
		if err := f.walk(filepath.Join(s.Dir, w)); err != nil {
			return Checkpoint{}, fmt.Errorf("look for checkpoints in work directory %s: %w", w, err)
		}
	}
	return f.best, nil
}

type checkpointFinder struct {
	search CheckpointSearch
	best   Checkpoint
}

func (f *checkpointFinder) walk(dir string) error {
	// A program may save into the work directory itself, over the last time.
	itself := savedDir(dir)
	if f.search.Rule == nil && itself != nil {
		f.offer(dir, itself)
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if path == dir {
			return nil
		}
		if f.search.Rule != nil {
			return f.matched(dir, path, d)
		}
		if strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		switch {
		case d.IsDir():
			if complete := checkpointDir(path); complete != nil {
				f.offer(path, complete)
				return fs.SkipDir
			}
			if hasFile(path, deepspeedParts) {
				return fs.SkipDir // the program goes by "latest" beside it
			}
		case itself != nil && filepath.Dir(path) == dir:
			// One of its files.
		case d.Type().IsRegular() && checkpointFile(d.Name()) && !shardFile.MatchString(d.Name()):
			f.offer(path, fileComplete)
		}
		return nil
	})
}

// matched offers what the rule matches.
func (f *checkpointFinder) matched(dir, path string, d fs.DirEntry) error {
	rel, err := filepath.Rel(dir, path)
	if err != nil {
		return err
	}
	if ok, _ := doublestar.Match(f.search.Rule.Glob, filepath.ToSlash(rel)); !ok {
		return nil
	}
	atRest := func(string) bool { return true }
	switch {
	case d.IsDir():
		complete := checkpointDir(path)
		switch {
		case complete == nil:
			complete = wholeBelow
		case eachRanksOwn(path):
			complete = wholeBeside
		}
		f.offer(path, complete)
		return fs.SkipDir
	case d.Type().IsRegular() && checkpointFile(d.Name()):
		f.offer(path, fileComplete)
	case d.Type().IsRegular():
		f.offer(path, atRest)
	}
	return nil
}

// checkpointDir tells how a directory that is a checkpoint as a whole is
// judged; nil if it is none.
func checkpointDir(path string) func(string) bool {
	if trainerDir.MatchString(filepath.Base(path)) {
		return trainerComplete
	}
	return savedDir(path)
}

// savedDir is checkpointDir for a directory of any name.
func savedDir(path string) func(string) bool {
	switch {
	case isDistributed(path):
		return distributedComplete
	case isDeepspeed(path):
		return deepspeedComplete
	case isAccelerate(path):
		return accelerateComplete
	case isSharded(path):
		return wholeBelow
	}
	return nil
}

// offer takes a file, or a directory whose files are all at rest, that is
// complete. A directory without files is nothing.
func (f *checkpointFinder) offer(path string, complete func(string) bool) {
	was, quiet := f.look(path)
	if was.files == 0 || !f.newer(path, was.newest) || !quiet || !complete(path) {
		return
	}
	// A writer may have come while it was checked.
	if again, quiet := f.look(path); quiet && again == was {
		f.best = Checkpoint{path, was.newest, was}
	}
}

// looked is what shows that a file, or the files of a directory, changed.
type looked struct {
	newest time.Time
	files  int
	bytes  int64
}

// look looks at a file, or at those of a directory; quiet says that nobody
// writes there.
func (f *checkpointFinder) look(dir string) (l looked, quiet bool) {
	quiet = true
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.ModTime().After(l.newest) {
			l.newest = info.ModTime()
		}
		l.files++
		l.bytes += info.Size()
		quiet = quiet && !f.written(path)
		return nil
	})
	return l, quiet && err == nil
}

func (f *checkpointFinder) written(path string) bool {
	return f.search.BeingWritten != nil && f.search.BeingWritten(path)
}

// newer prefers the later name of two that are equally old: epoch=1, epoch=2, last.
func (f *checkpointFinder) newer(path string, t time.Time) bool {
	if !t.After(f.search.After) {
		return false
	}
	return f.best.Path == "" || t.After(f.best.Time) || t.Equal(f.best.Time) && path > f.best.Path
}
