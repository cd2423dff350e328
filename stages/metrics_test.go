package stages

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func eventsFixture(t testing.TB) []byte { // by tensorboardX
	return metricsFixture(t, "events.out.tfevents.1700000000.host")
}

func metricsFixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/metrics/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wordSeries is a line for each series.
func wordSeries(list []Series) (lines []string) {
	for _, s := range list {
		line := s.Name
		for _, p := range s.Points {
			line += fmt.Sprintf(" %g:%.4g", p.Step, p.Value)
		}
		lines = append(lines, line)
	}
	return lines
}

// eventRecord frames one event as an event file does.
func eventRecord(data []byte) []byte {
	head := binary.LittleEndian.AppendUint64(nil, uint64(len(data)))
	b := binary.LittleEndian.AppendUint32(slices.Clone(head), maskedCRC(head))
	return binary.LittleEndian.AppendUint32(append(b, data...), maskedCRC(data))
}

// recordEnd is where the n-th record of an event file ends.
func recordEnd(events string, n int) (end int) {
	for range n {
		end += 8 + 4 + int(binary.LittleEndian.Uint64([]byte(events[end:]))) + 4
	}
	return end
}

// tensorEvent is a scalar as TensorFlow 2 writes it: step 3, tag "t".
func tensorEvent() []byte {
	tensor := []byte{0x08, 1, 0x22, 4, 0, 0, 0x80, 0x3f} // dtype float, content 1.0
	value := append([]byte{0x0a, 1, 't', 0x42, byte(len(tensor))}, tensor...)
	summary := append([]byte{0x0a, byte(len(value))}, value...)
	return append([]byte{0x10, 3, 0x2a, byte(len(summary))}, summary...)
}

func TestReadMetrics(t *testing.T) {
	events := string(eventsFixture(t))
	const ev = "events.out.tfevents.1700000000.host"
	seventh := recordEnd(events, 7) // the first says the version, then they take turns
	damaged := []byte(events)
	damaged[seventh+20] ^= 1
	for _, c := range []struct {
		name  string
		files map[string]string
		want  []string
		notes string
	}{
		{"a table", map[string]string{"m/metrics.csv": "epoch,loss,step,note\n0,0.5,9,a\n1,0.25,19,\n1,,19,b\n"},
			[]string{"epoch 9:0 19:1 19:1", "loss 9:0.5 19:0.25"}, ""},
		{"a table without steps", map[string]string{"m/metrics.csv": "\ufeffloss, acc\n3,1\nnan,2\n"}, []string{"acc 0:1 1:2", "loss 0:3 1:NaN"}, ""},
		{"a table that is being written", map[string]string{"m/metrics.csv": "step,loss\n1,2\n2,0.0"}, []string{"loss 1:2"}, ""},
		{"a table that is being written, at the end of a line", map[string]string{"m/metrics.csv": "step,loss\n1,2\n2,0.5\n"}, []string{"loss 1:2 2:0.5"}, ""},
		{"a table whose last line does not end", map[string]string{"m/metrics.csv": "step,loss\n1,2\n2,0.5"}, []string{"loss 1:2 2:0.5"}, ""},
		{"a table without lines", map[string]string{"m/metrics.csv": "step,loss\n"}, nil, ""},
		{"lines of which the last does not end", map[string]string{"m/log.jsonl": "{\"loss\":2}\n{\"loss\":1}"}, []string{"loss 0:2 1:1"}, ""},
		{"data", map[string]string{"d/data.csv": "1,2,3\n4,5,6\n"}, nil, ""},
		{"tries of one run", map[string]string{
			"l/version_0/metrics.csv":  "step,loss\n1,10\n2,9\n3,8\n",
			"l/version_2/metrics.csv":  "step,loss\n2,7\n3,6\n",
			"l/version_10/metrics.csv": "step,loss\n3,5\n4,4\n",
		}, []string{"loss 1:10 2:7 3:5 4:4"}, ""},
		{"one name in two files", map[string]string{"train/log.csv": "step,loss\n1,2\n", "valid/log.csv": "step,loss,acc\n1,3,4\n"},
			[]string{"acc 1:4", "train/log:loss 1:2", "valid/log:loss 1:3"}, ""},
		{"numbers by name", map[string]string{"m/scores.json": `{"a":1,"b":{"c":2.5,"d":"text","e":null,"f":true},"list":[1,2]}`},
			[]string{"a 0:1", "b.c 0:2.5", "list 0:1 1:2"}, ""},
		{"a history", map[string]string{"m/trainer_state.json": `{"epoch":2,"log_history":[{"step":5,"loss":1},{"step":10,"loss":0.5,"n":{"x":1}}]}`},
			[]string{"log_history.loss 5:1 10:0.5", "log_history.n.x 10:1"}, ""},
		{"lines", map[string]string{"m/log.jsonl": "{\"step\":1,\"loss\":2}\n\n{\"step\":2,\"eval\":{\"f1\":0.5}}\n{\"step\":3,\"lo"}, []string{"eval.f1 2:0.5", "loss 1:2"}, ""},
		{"what Python has no number for", map[string]string{"m/log.jsonl": `{"loss":NaN,"text":"no \"NaN","d":{"x":-Infinity}}` + "\n" + `{"loss":Infinity}` + "\n" + `{"loss":1}` + "\n"},
			[]string{"d.x 0:-Inf", "loss 0:NaN 1:+Inf 2:1"}, ""},
		{"the same in lists", map[string]string{"m/a.json": `{"l":[1,NaN,"b",[2]],"h":[{"step":3,"loss":NaN}]}`}, []string{"h.loss 3:NaN", "l 0:1 1:NaN"}, ""},
		{"lines that are none", map[string]string{"m/log.jsonl": "{\"loss\":2}\nhello\n"}, []string{"loss 0:2"}, "line 2"},
		{"no JSON", map[string]string{"m/x.json": "{"}, nil, "not JSON"},
		{"a vocabulary", map[string]string{"m/vocab.json": vocabulary(), "m/loss.csv": "loss\n1\n"}, []string{"loss 0:1"}, ""},
		{"events", map[string]string{"tb/" + ev: events}, []string{"accuracy 0:0 10:0.25 20:0.5 30:0.75 40:1", "loss/train 0:1 10:0.5 20:0.3333 30:0.25 40:0.2"}, ""},
		{"events that are being written", map[string]string{"tb/" + ev: events[:seventh+20]}, []string{"accuracy 0:0 10:0.25 20:0.5", "loss/train 0:1 10:0.5 20:0.3333"}, ""},
		{"damaged events", map[string]string{"tb/" + ev: string(damaged)}, []string{"accuracy 0:0 10:0.25 20:0.5", "loss/train 0:1 10:0.5 20:0.3333"}, "damaged"},
		// Scalars as floats and as tensors, and what is none: a histogram, text, an image.
		{"events of torch.utils.tensorboard", map[string]string{"tb/" + ev: string(metricsFixture(t, "torch.tfevents"))},
			[]string{"double 0:0 1:0.1 2:0.2", "loss 0:1 1:0.5 2:0.3333 3:NaN", "neu/größe 0:0 1:0.5 2:1"}, ""},
		{"a tensor", map[string]string{"tb/" + ev: string(eventRecord(tensorEvent()))}, []string{"t 3:1"}, ""},
		{"two event files", map[string]string{"a/events.out.tfevents.1": string(eventRecord(tensorEvent())), "a/events.out.tfevents.2": string(eventRecord(tensorEvent()))}, []string{"t 3:1"}, ""},
		{"nothing", map[string]string{"m/model.bin": "x", ".hidden.csv": "a\n1\n"}, nil, ""},
	} {
		fsys := fstest.MapFS{}
		for name, text := range c.files {
			fsys[name] = &fstest.MapFile{Data: []byte(text)}
		}
		list, notes, err := ReadMetrics(fsys, !strings.Contains(c.name, "being written"))
		got := wordSeries(list)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
		if all := strings.Join(notes, "\n"); (all == "") != (c.notes == "") || !strings.Contains(all, c.notes) {
			t.Errorf("%s: notes %q, want %q", c.name, all, c.notes)
		}
	}
}

func vocabulary() string {
	var b strings.Builder
	b.WriteString("{")
	for i := range 2000 {
		fmt.Fprintf(&b, "%q:%d,", fmt.Sprint("word", i), i)
	}
	return b.String() + `"end":0}`
}

// FuzzMetrics checks that any bytes can be read as any kind of metrics, and
// that a byte that was changed in an event file never changes a value: it is
// the checksum that fails.
func FuzzMetrics(f *testing.F) {
	f.Add(eventsFixture(f), uint16(0))
	f.Add(eventRecord(tensorEvent()), uint16(17))
	f.Add([]byte("step,loss\n1,2\n\"3\"\"\",4\n"), uint16(3))
	f.Add([]byte(`{"a":[{"b":[1,[2]]}],"c":1e999}`), uint16(4))
	f.Fuzz(func(t *testing.T, b []byte, at uint16) {
		for _, name := range []string{"a.csv", "a.json", "a.jsonl", "a.tfevents.1"} {
			list, _, err := ReadMetrics(fstest.MapFS{name: &fstest.MapFile{Data: b}}, at%2 == 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range list {
				if len(s.Points) == 0 {
					t.Errorf("%s: %q has no point", name, s.Name)
				}
			}
		}
		if len(b) == 0 {
			return
		}
		whole := newMetricScan(bytes.NewReader(b), maxMetrics)
		_ = whole.events()
		changed := slices.Clone(b)
		changed[int(at)%len(b)] ^= 0x40
		other := newMetricScan(bytes.NewReader(changed), maxMetrics)
		_ = other.events()
		for name, points := range other.series {
			for i, p := range points {
				was := whole.series[name]
				if i >= len(was) || was[i].Step != p.Step || math.Float64bits(was[i].Value) != math.Float64bits(p.Value) {
					// What was damaged before may be whole now, by the same change.
					if len(was) > i {
						t.Errorf("%s at %d: %v became %v", name, i, was[i], p)
					}
				}
			}
		}
	})
}
