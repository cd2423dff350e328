package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/curi-store/curi/cas"
)

// statsWait bounds how long a mount may take to tell its counters.
const statsWait = 2 * time.Second

// askMounts fills in what the servers of the mounts counted, all at once.
func (a *app) askMounts(ctx context.Context, live []cas.Mount, out []mountJSON) {
	ctx, cancel := context.WithTimeout(ctx, statsWait)
	defer cancel()
	var wg sync.WaitGroup
	for i, m := range live {
		if !m.Reachable() {
			continue // only its own mount namespace can ask it
		}
		wg.Go(func() {
			st, err := m.Stats(ctx)
			if err != nil {
				a.logger().Debug(oneLine(err.Error()))
				return
			}
			out[i].Stats = &st
		})
	}
	wg.Wait()
}

// wordMountStats words what a mount's server counted, in lines.
func wordMountStats(m mountJSON) []string {
	var lines []string
	st := m.Stats
	switch {
	case st == nil:
		lines = append(lines, "its counters cannot be read from here")
	default:
		up := span(time.Duration(st.UptimeSeconds * float64(time.Second)))
		lines = append(lines, fmt.Sprintf("up %s; %s opened, %s by passthrough, %d open now", up, files(st.Opens), percent(st.PassthroughOpens, st.Opens), st.OpenFiles))
		lines = append(lines, fmt.Sprintf("through the server %s read, %s written; cache hits %s of %s",
			size(st.ReadBytes), size(st.WrittenBytes), percent(st.CacheHits, st.CacheHits+st.CacheMisses), count(st.CacheHits+st.CacheMisses, "open")))
		if e := wordErrors(st.Errors); e != "" {
			lines = append(lines, "errors: "+e)
		}
	}
	if m.Metrics != "" {
		lines = append(lines, "metrics at http://"+m.Metrics+"/metrics")
	}
	return lines
}

// wordErrors lists the classes that occurred. That something was looked for
// and absent is in the nature of programs, and only in the JSON.
func wordErrors(e cas.MountErrors) string {
	var list []string
	for _, c := range []struct {
		n    int64
		name string
	}{
		{e.IO, "io"}, {e.Space, "space"}, {e.Refused, "refused"}, {e.Busy, "busy"}, {e.Limit, "limit"}, {e.Other, "other"},
	} {
		if c.n > 0 {
			list = append(list, fmt.Sprintf("%d %s", c.n, c.name))
		}
	}
	return strings.Join(list, ", ")
}

// percent words a share; that of nothing is "-".
func percent(part, whole int64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", 100*float64(part)/float64(whole))
}
