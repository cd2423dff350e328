package launcher

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestGPUsAreReadFromTheDriver(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"gpus/0000:01:00.0/information": "Model: \t\t NVIDIA A100-SXM4-80GB\nIRQ:   \t\t 100\n",
		"gpus/0000:02:00.0/information": "Model: \t\t NVIDIA H100 PCIe\n",
		"version":                       "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\nGCC version:  gcc version 12.2.0\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	models, driver := nvidia(dir)
	if want := []string{"NVIDIA A100-SXM4-80GB", "NVIDIA H100 PCIe"}; !slices.Equal(models, want) || driver != "550.54.14" {
		t.Errorf("%q, %q, want %q, 550.54.14", models, driver, want)
	}
	if models, driver := nvidia(filepath.Join(dir, "none")); models != nil || driver != "" {
		t.Errorf("%q, %q without a driver", models, driver)
	}
}
