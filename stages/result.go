package stages

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/curi-store/curi/cas"
)

// Result is what stage/<key> names.
type Result struct {
	Run  string     // the run that made it
	Tree cas.Digest // out/…, record.json, log.txt
}

type resultInfo struct {
	Run string `json:"run"`
}

// PutResult makes a run's tree the result of a key, replacing an older one.
func PutResult(ctx context.Context, s *cas.Store, k Key, r Result) error {
	info, err := json.Marshal(resultInfo{r.Run})
	if err != nil {
		return fmt.Errorf("result of %s: %w", k, err)
	}
	return s.SetRef(ctx, cas.Ref{Name: "stage/" + k.String(), Tree: r.Tree, Info: info})
}

// topChecked bounds how many blobs FindResult looks for in one output.
const topChecked = 64

// FindResult looks a key up, older key versions included; cas.ErrNotFound. A
// result whose blobs were taken away is cas.ErrNotFound too, with a reason.
//
// It reads no output and its cost does not grow with their size: it checks that
// the record's preimage hashes to the key, that the record, the log and every
// output's root tree are there, and the first 64 files at the top of each
// output. What lacks deeper down shows when it is opened. Of a result that was
// taken from a remote, only the record is looked at.
func FindResult(ctx context.Context, s *cas.Store, k Key) (Result, error) {
	res, _, err := findResult(ctx, s, k, false)
	return res, err
}

// findOutputs is FindResult that returns the trees of the outputs too, of which
// it asks the remote where only that has them.
func findOutputs(ctx context.Context, s *cas.Store, k Key) (Result, map[string]cas.Digest, error) {
	return findResult(ctx, s, k, true)
}

func findResult(ctx context.Context, s *cas.Store, k Key, all bool) (Result, map[string]cas.Digest, error) {
	ref, err := s.Ref(ctx, "stage/"+k.String())
	if err != nil {
		return Result{}, nil, err
	}
	var info resultInfo
	if err := json.Unmarshal(ref.Info, &info); err != nil || info.Run == "" {
		return Result{}, nil, fmt.Errorf("ref %s: %w: it names no run", ref.Name, cas.ErrCorrupt)
	}
	outputs, err := checkResult(ctx, s, k, ref.Tree, all)
	if err != nil && ctx.Err() == nil && !s.HasTree(ref.Tree) && !errors.Is(err, cas.ErrNotFound) && !errors.Is(err, cas.ErrCorrupt) {
		// A remote that is away is no reason to fail.
		err = fmt.Errorf("what a remote has of it cannot be read: %w: %w", err, cas.ErrNotFound)
	}
	if err != nil {
		return Result{}, nil, fmt.Errorf("the result of %s is there no more: %w", info.Run, err)
	}
	return Result{Run: info.Run, Tree: ref.Tree}, outputs, nil
}

// checkResult checks a result and returns the trees of its outputs, but for those
// of a remote only with all.
func checkResult(ctx context.Context, s *cas.Store, k Key, tree cas.Digest, all bool) (map[string]cas.Digest, error) {
	root, err := s.Tree(ctx, tree)
	if err != nil {
		return nil, err
	}
	record, ok := root.Lookup("record.json")
	if !ok || record.Kind != cas.KindFile {
		return nil, fmt.Errorf("tree %s has no record.json: %w", tree, cas.ErrCorrupt)
	}
	blob, err := s.OpenBlob(ctx, record.Digest)
	if err != nil {
		return nil, fmt.Errorf("record.json: %w", err)
	}
	defer blob.Close()
	if err := CheckRecord(blob, k); err != nil {
		return nil, err
	}
	lazy := !s.HasTree(tree)
	for _, e := range root.Entries {
		if e.Kind != cas.KindDir && !lazy {
			if err := needBlob(s, e); err != nil {
				return nil, err
			}
		}
	}
	if lazy && !all {
		return nil, nil // a remote has them
	}
	outputs, err := outputsIn(ctx, s, root)
	if err != nil {
		return nil, err
	}
	trees := map[string]cas.Digest{}
	for _, e := range outputs {
		if lazy {
			trees[e.Name] = e.Digest
			continue
		}
		if err := checkTop(ctx, s, e); err != nil {
			return nil, fmt.Errorf("output %s: %w", e.Name, err)
		}
		trees[e.Name] = e.Digest
	}
	return trees, nil
}

// outputsIn lists the outputs of a result's root.
func outputsIn(ctx context.Context, s *cas.Store, root *cas.Tree) ([]cas.Entry, error) {
	out, ok := root.Lookup("out")
	if !ok {
		return nil, nil // a stage without outputs
	}
	t, err := s.Tree(ctx, out.Digest)
	if err != nil {
		return nil, fmt.Errorf("out: %w", err)
	}
	return t.Entries, nil
}

// outputTrees are the trees of the outputs in a result.
func outputTrees(ctx context.Context, s *cas.Store, tree cas.Digest) (map[string]cas.Digest, error) {
	root, err := s.Tree(ctx, tree)
	if err != nil {
		return nil, err
	}
	outputs, err := outputsIn(ctx, s, root)
	if err != nil {
		return nil, err
	}
	trees := map[string]cas.Digest{}
	for _, e := range outputs {
		trees[e.Name] = e.Digest
	}
	return trees, nil
}

// CheckRecord reports whether a record is of a key: its preimage must hash to
// it; [cas.ErrCorrupt].
func CheckRecord(record io.Reader, k Key) error {
	preimage, err := readPreimage(record)
	if err != nil {
		return fmt.Errorf("record.json: %w", err)
	}
	if preimage.Key() != k {
		return fmt.Errorf("record.json is of another key (%s): %w", preimage.Key(), cas.ErrCorrupt)
	}
	return nil
}

// checkTop looks for what lies at the top of an output; of a single file
// below directories, for the file.
func checkTop(ctx context.Context, s *cas.Store, e cas.Entry) error {
	for e.Kind == cas.KindDir {
		t, err := s.Tree(ctx, e.Digest)
		if err != nil {
			return err
		}
		if len(t.Entries) == 1 && t.Entries[0].Kind == cas.KindDir {
			e = t.Entries[0]
			continue
		}
		for i, f := range t.Entries {
			if i == topChecked {
				break
			}
			if err := needBlob(s, f); err != nil {
				return err
			}
		}
		return nil
	}
	return needBlob(s, e)
}

func needBlob(s *cas.Store, e cas.Entry) error {
	if e.Kind != cas.KindFile && e.Kind != cas.KindExecutable {
		return nil
	}
	if !s.HasWholeBlob(e.Digest, e.Size) {
		return fmt.Errorf("%s: blob %s is missing or cut off: %w", e.Name, e.Digest, cas.ErrNotFound)
	}
	return nil
}

// readPreimage reads a record only as far as its preimage, which stands near
// the beginning: the rest may hold megabytes of a diff.
func readPreimage(r io.Reader) (Preimage, error) {
	dec := json.NewDecoder(r)
	bad := func(err error) error { return fmt.Errorf("%w: %v", cas.ErrCorrupt, err) }
	t, err := dec.Token()
	if err != nil || t != json.Delim('{') {
		return "", bad(errors.New("not a JSON object"))
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return "", bad(err)
		}
		if name == "preimage" {
			var p Preimage
			if err := dec.Decode(&p); err != nil {
				return "", bad(err)
			}
			return p, nil
		}
		var skip json.RawMessage
		if err := dec.Decode(&skip); err != nil {
			return "", bad(err)
		}
	}
	return "", bad(errors.New("there is no preimage"))
}

// NoteHit notes that a plan took a result: the newest result of a stage is the
// one that was made or taken last. A result that another stage or project made
// gets a run under this plan's name, so that STAGE.OUTPUT finds it.
//
// It returns the run of that name.
func NoteHit(ctx context.Context, s *cas.Store, p *Plan, res Result) (run string, err error) {
	if err := s.TouchRef(ctx, "stage/"+p.Key.String()); err != nil {
		return "", err
	}
	made, err := FindRun(ctx, s, res.Run)
	if err == nil && made.Stage == p.Name && made.Project == p.Project.Name {
		if made.Tree.IsZero() && made.Status.HasResult() {
			// A collection that was cut off had begun to give the result up.
			return made.ID, PutRun(ctx, s, made, res.Tree)
		}
		return made.ID, s.TouchRef(ctx, "run/"+made.ID)
	}
	if err != nil && !errors.Is(err, cas.ErrNotFound) {
		return "", err
	}
	for r, err := range runsWith(ctx, s, "run/"+p.Name+"-") {
		if err == nil && r.Key == p.Key.String() && r.Stage == p.Name && r.Project == p.Project.Name && r.SameAs == res.Run {
			return r.ID, s.TouchRef(ctx, "run/"+r.ID)
		}
	}
	id, err := NewRunID(ctx, s, p.Name)
	if err != nil {
		return "", err
	}
	alias := NewRun(p, id, max(made.Attempt, 1))
	alias.Status, alias.SameAs, alias.Ended = Succeeded, res.Run, alias.Started
	return id, PutRun(ctx, s, alias, res.Tree)
}

// Withdraw takes a run's result back: the next exec of its key is a miss. The
// run stays in the log, and its outputs in the store until they are collected.
func Withdraw(ctx context.Context, s *cas.Store, id string) error {
	r, err := FindRun(ctx, s, id)
	if err != nil {
		return err
	}
	if r.Status == Withdrawn {
		return nil
	}
	if !r.Status.HasResult() {
		return usagef("run %s is %s: it has no result to withdraw", id, r.Status)
	}
	name := "stage/" + r.Key
	ref, err := s.Ref(ctx, name)
	var info resultInfo
	if err == nil && json.Unmarshal(ref.Info, &info) == nil && (info.Run == id || info.Run == r.SameAs) {
		err = s.DeleteRef(ctx, name)
	}
	if err != nil && !errors.Is(err, cas.ErrNotFound) {
		return fmt.Errorf("withdraw %s: %w", id, err)
	}
	r.Status = Withdrawn
	return PutRun(ctx, s, r, r.Tree)
}
