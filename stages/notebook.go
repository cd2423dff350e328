package stages

import (
	"encoding/json"
	"strings"
)

// notebookSource is the code of a Jupyter notebook, for the imports in it. What
// is no notebook has none.
func notebookSource(b []byte) []byte {
	var notebook struct {
		Cells []struct {
			Type   string          `json:"cell_type"`
			Source json.RawMessage `json:"source"` // a text, or a list of lines with their ends
		} `json:"cells"`
	}
	if json.Unmarshal(b, &notebook) != nil {
		return nil
	}
	var source strings.Builder
	for _, cell := range notebook.Cells {
		if cell.Type != "code" {
			continue
		}
		var text string
		var lines []string
		if json.Unmarshal(cell.Source, &text) != nil && json.Unmarshal(cell.Source, &lines) == nil {
			text = strings.Join(lines, "")
		}
		for line := range strings.Lines(text) {
			// Commands of the notebook and of the shell are no Python.
			if start := strings.TrimLeft(line, " \t"); !strings.HasPrefix(start, "%") && !strings.HasPrefix(start, "!") {
				source.WriteString(line)
			}
		}
		source.WriteString("\n")
	}
	return []byte(source.String())
}
