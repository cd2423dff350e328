package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
)

// lineHandler writes a log record as one line for people: "curi: message key=value".
type lineHandler struct {
	mu    sync.Mutex
	w     io.Writer
	level slog.Level
	attrs []slog.Attr
}

func (h *lineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString("curi: ")
	b.WriteString(oneLine(r.Message))
	put := func(at slog.Attr) bool {
		v := oneLine(at.Value.String())
		if strings.ContainsAny(v, " \"=") {
			v = fmt.Sprintf("%q", v)
		}
		fmt.Fprintf(&b, " %s=%s", at.Key, v)
		return true
	}
	for _, at := range h.attrs {
		put(at)
	}
	r.Attrs(put)
	b.WriteByte('\n')
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := io.WriteString(h.w, b.String())
	return err
}

func (h *lineHandler) WithAttrs(as []slog.Attr) slog.Handler {
	return &lineHandler{w: h.w, level: h.level, attrs: append(append([]slog.Attr(nil), h.attrs...), as...)}
}

// WithGroup keeps keys as they are: one line has no room for groups.
func (h *lineHandler) WithGroup(string) slog.Handler { return h }
