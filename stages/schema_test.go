package stages

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
)

// The schema names every key that the parser knows, and no other.
func TestSchema(t *testing.T) {
	type schema struct {
		Properties  map[string]schema `json:"properties"`
		Definitions map[string]schema `json:"definitions"`
		AnyOf       []schema          `json:"anyOf"`
		Enum        []string          `json:"enum"`
		OneOf       []json.RawMessage `json:"oneOf"`
	}
	var s schema
	if err := json.Unmarshal([]byte(Schema), &s); err != nil {
		t.Fatal(err)
	}
	stage := s.Definitions["stage"].Properties
	for _, c := range []struct {
		what  string
		have  map[string]schema
		parse []string
	}{
		{"the file", s.Properties, fileKeys},
		{"a stage", stage, stageKeys},
		{"an output", s.Definitions["output"].AnyOf[1].Properties, outputKeys},
		{"resources", stage["resources"].Properties, resourceKinds},
		{"resume", stage["resume"].Properties, resumeKeys},
		{"launcher", stage["launcher"].AnyOf[1].Properties, launchers},
	} {
		have, want := slices.Sorted(maps.Keys(c.have)), slices.Sorted(slices.Values(c.parse))
		if !slices.Equal(have, want) {
			t.Errorf("%s: the schema has\n%q, the parser\n%q", c.what, have, want)
		}
	}
	if !slices.Equal(stage["launcher"].AnyOf[0].Enum, launchers) {
		t.Errorf("launchers %q", stage["launcher"].AnyOf[0].Enum)
	}
}
