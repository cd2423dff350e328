//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"strconv"

	"github.com/curi-store/curi/cas"
)

// sample is one value of a metric.
type sample struct {
	labels string // such as class="io", or ""
	value  float64
}

// writeMetrics writes the counters of a mount in Prometheus's text format,
// version 0.0.4. Nothing in it tells where the store or the mount is.
func writeMetrics(w io.Writer, st cas.MountStats, version string) {
	var b bytes.Buffer
	metric := func(kind, name, help string, samples ...sample) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
		for _, s := range samples {
			b.WriteString(name)
			if s.labels != "" {
				b.WriteString("{" + s.labels + "}")
			}
			b.WriteString(" " + strconv.FormatFloat(s.value, 'f', -1, 64) + "\n")
		}
	}
	gauge := func(name, help string, value float64) { metric("gauge", name, help, sample{"", value}) }
	counter := func(name, help string, value int64) { metric("counter", name, help, sample{"", float64(value)}) }
	labelled := func(name, value string, n int64) sample {
		return sample{name + "=" + strconv.Quote(value), float64(n)}
	}

	metric("gauge", "curi_build_info", "The version that serves, as a label.", labelled("version", version, 1))
	gauge("curi_mount_uptime_seconds", "How long the mount has served.", st.UptimeSeconds)
	metric("counter", "curi_mount_opens_total", "Files opened, by who serves their bytes: the kernel by passthrough, or the server.",
		labelled("by", "passthrough", st.PassthroughOpens), labelled("by", "server", st.Opens-st.PassthroughOpens))
	gauge("curi_mount_open_files", "Files open now.", float64(st.OpenFiles))
	gauge("curi_mount_open_directories", "Directories open now.", float64(st.OpenDirs))
	counter("curi_mount_read_requests_total", "Reads that reached the server.", st.Reads)
	counter("curi_mount_write_requests_total", "Writes that reached the server.", st.Writes)
	counter("curi_mount_read_bytes_total", "Bytes read through the server; those by passthrough nobody counts.", st.ReadBytes)
	counter("curi_mount_written_bytes_total", "Bytes written through the server; those by passthrough nobody counts.", st.WrittenBytes)
	counter("curi_mount_lookups_total", "Names that the kernel did not know, or no more.", st.Lookups)
	counter("curi_mount_cache_hits_total", "Opens of stored files, not by passthrough, that the kernel served from its cache alone.", st.CacheHits)
	counter("curi_mount_cache_misses_total", "Opens of stored files, not by passthrough, during which the kernel asked for bytes.", st.CacheMisses)
	counter("curi_mount_refreshes_total", "Times the names were looked through for changes.", st.Refreshes)
	metric("counter", "curi_mount_errors_total", "Requests answered with an error, by class.",
		labelled("class", "io", st.Errors.IO), labelled("class", "space", st.Errors.Space),
		labelled("class", "refused", st.Errors.Refused), labelled("class", "busy", st.Errors.Busy),
		labelled("class", "limit", st.Errors.Limit), labelled("class", "absent", st.Errors.Absent),
		labelled("class", "other", st.Errors.Other))
	// Whoever asked may have gone.
	_, _ = w.Write(b.Bytes())
}
