package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
)

func newFsck(a *app) *cobra.Command {
	sample := "100%"
	c := &cobra.Command{
		Use:   "fsck",
		Short: "Rehash what is stored and quarantine what is bad",
		Long: `Read every blob and tree again and compare it with its digest. What is bad is moved
to the store's quarantine, and whatever used it is named. What is bad of a file of
which only parts came from a remote is dropped, and comes again when it is read.
The exit status is 122 where something was bad.

A file that the disk fails to read is reported and left where it is, as another
read may succeed. If none does, remove the file that is named and add it again.`,
		Example: `  curi fsck
  curi fsck --sample 5%    # a share of the blobs, chosen at random
  curi fsck --json`,
		Args:              nargs(0, 0, "no argument"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			share, err := parsePercent(sample)
			if err != nil {
				return usagef("curi fsck --sample: %v", err)
			}
			return a.fsck(c.Context(), share)
		},
	}
	c.Flags().StringVar(&sample, "sample", sample, "rehash only this share of the blobs, `N%`")
	return c
}

func (a *app) fsck(ctx context.Context, share float64) error {
	s, err := a.existingStore(ctx)
	if err != nil {
		return err
	}
	progress, clear := a.progress("checking")
	defer clear()
	r, err := s.Verify(ctx, cas.VerifyOptions{Sample: share, Progress: progress})
	if err != nil {
		return err
	}
	clear()
	if r.Bad == nil {
		r.Bad = []cas.BadBlob{}
	}
	for i := range r.Bad {
		if r.Bad[i].UsedBy == nil {
			r.Bad[i].UsedBy = []string{}
		}
	}
	if a.json {
		err = a.printJSON(r)
	} else {
		err = a.write(wordVerify(r))
	}
	if err == nil && len(r.Bad) > 0 {
		return &statusError{exitCorrupt, errors.New(strings.Join(wordBad(r.Bad, filepath.Join(s.Dir(), "quarantine")), "; "))}
	}
	return err
}

// wordBad sums up what is bad, and what to do: blobs and trees are in
// quarantine, names that cannot be read stay where they are.
func wordBad(bad []cas.BadBlob, quarantine string) (words []string) {
	names, partial := 0, 0
	for _, b := range bad {
		switch {
		case b.Digest.IsZero():
			names++
		case b.Partial:
			partial++
		}
	}
	if n := len(bad) - names - partial; n > 0 {
		words = append(words, areBad(n, "blob")+" bad: bytes that do not match their digest go to "+quarantine+", add or run again what used them")
	}
	if partial > 0 {
		words = append(words, areBad(partial, "file")+" damaged of which parts came from a remote: they come again when they are read; look at the disk")
	}
	if names > 0 {
		words = append(words, areBad(names, "name")+" unreadable: curi rm of that version or run forgets it")
	}
	return words
}

func areBad(n int, thing string) string {
	if n == 1 {
		return "1 " + thing + " is"
	}
	return fmt.Sprintf("%d %ss are", n, thing)
}

func wordVerify(r cas.VerifyReport) string {
	var b strings.Builder
	for _, bad := range r.Bad {
		if bad.Digest.IsZero() {
			fmt.Fprintf(&b, "bad  %s\n", visible(bad.Reason))
			continue
		}
		used := "used by nothing"
		if len(bad.UsedBy) > 0 {
			used = "used by " + strings.Join(bad.UsedBy, ", ")
		}
		if bad.Partial {
			used = "it is not whole yet"
		}
		fmt.Fprintf(&b, "bad  %s  %s; %s\n", bad.Digest, visible(bad.Reason), visible(used))
	}
	if len(r.Bad) == 0 {
		fmt.Fprintf(&b, "%s checked, none bad\n", count(r.BlobsChecked, "blob"))
	}
	return b.String()
}
