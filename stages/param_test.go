package stages

import (
	"errors"
	"strings"
	"testing"
)

func TestParseParam(t *testing.T) {
	for _, c := range []struct{ text, typ, canonical string }{
		{"epochs=3", "int", "3"},
		{"n=-12", "int", "-12"},
		{"n=123456789012345678901234567890", "int", "123456789012345678901234567890"},
		{"lr=0.05", "float", "0.05"},
		{"lr=5e-2", "float", "0.05"},
		{"lr=1e-2", "float", "0.01"},
		{"lr=1.0", "float", "1.0"},
		{"lr=.5", "float", "0.5"},
		{"lr=1e400", "str", "1e400"},
		{"zip=00123", "str", "00123"},
		{"x=0x10", "str", "0x10"},
		{"x=1_000", "str", "1_000"},
		{"x=nan", "str", "nan"},
		{"x:float=inf", "float", "inf"},
		{"amp=true", "bool", "true"},
		{"amp=False", "bool", "false"},
		{"name=resnet", "str", "resnet"},
		{"name=", "str", ""},
		{"name=a=b", "str", "a=b"},
		{"k:str=1", "str", "1"},
		{"k:float=1", "float", "1.0"},
		{"k:null=", "null", "null"},
		{"sizes=[1, 2.50, \"a\", true, null]", "list", `[1,2.5,"a",true,null]`},
		{"sizes=[1.0]", "list", "[1.0]"},
		{"k:list=[]", "list", "[]"},
		{"k=[1,2", "str", "[1,2"},
		{`k=[{"b":1,"a":[2]}]`, "list", `[{"a":[2],"b":1}]`},
		{"optim.lr=1", "int", "1"},
	} {
		p, err := ParseParam(c.text, false)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		_, raw, _ := strings.Cut(c.text, "=")
		if p.Type != c.typ || p.Canonical != c.canonical || p.Raw != raw {
			t.Errorf("%s: is %s %q (raw %q), want %s %q (raw %q)", c.text, p.Type, p.Canonical, p.Raw, c.typ, c.canonical, raw)
		}
	}
}

func TestParseParamErrors(t *testing.T) {
	for text, want := range map[string]string{
		"lr":            "NAME=VALUE",
		"=3":            "name",
		"1a=3":          "name",
		"a b=3":         "name",
		"k:integer=3":   "unknown type \"integer\": use one of int, float",
		"k:int=1.5":     "is no int",
		"k:bool=yes":    "use true or false",
		"k:list=1,2":    "JSON",
		"k:null=x":      "leave the value empty",
		"k=a\x00b":      "NUL",
		"k:float=1e400": "is no float",
	} {
		_, err := ParseParam(text, false)
		if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one about %q", text, err, want)
		}
	}
}

// Two values that differ are never one: half a character is no text, which
// JSON can write and nothing can hand over.
func TestHalfACharacterIsNoList(t *testing.T) {
	keyed := map[string]string{}
	for _, text := range []string{`k=["\ud800"]`, `k=["\ud801"]`, `k=["\uDFFF"]`, "k=[\"\ufffd\"]", `k=["\ud83d\ude00"]`} {
		p, err := ParseParam(text, false)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := keyed[p.Type+p.Canonical]; ok {
			t.Errorf("%s is keyed as %s is", text, other)
		}
		keyed[p.Type+p.Canonical] = text
	}
}

func FuzzParseParam(f *testing.F) {
	for _, s := range []string{"a=1", "a:list=[1,{\"b\":2}]", "a:str=[", "a=1e5", "a=-0.0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseParam(text, false)
		if err != nil {
			if !errors.Is(err, ErrUsage) {
				t.Fatal(err)
			}
			return
		}
		// The canonical value is a value of its type, and its own canonical form.
		again, err := ParseParam(p.Name+":"+p.Type+"="+p.Canonical, false)
		if err != nil || again.Canonical != p.Canonical {
			t.Fatalf("%q: canonical %q becomes %q (%v)", text, p.Canonical, again.Canonical, err)
		}
		_ = p.JSON()
		_ = p.items()
	})
}
