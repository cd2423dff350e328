package main

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/curi-store/curi/stages"
)

// A stage of curi.yaml is what the options of exec make of the same words.
func TestFileIsTheOptions(t *testing.T) {
	for _, c := range []struct{ yaml, options string }{
		{`
    run: [torchrun, --lr, "{param.lr}", "{in.dataset}", "{in.base}", "{out.model}", "{out.metrics}", "{work.ck}", "{param.n}"]
    in: {dataset: digits@2}
    in_rw: {base: model@best/sub}
    out:
      model: {path: model.ckpt, meta: {type: A=B, user.curi.x: "1"}, publish: [digits-model, other]}
      metrics: {path: metrics/, optional: true}
      logs: {from: lightning_logs/}
      log: {path: a/b.txt, from: /tmp/x}
    publish: {metrics: m}
    work: {ck: checkpoints/}
    params: {lr: 1e-2, n: 2, name: "3", on: true, list: [1, 2.50, x], none: ~}
    operational: [n]
    via: env
    code: ["**.py", src/**]
    tools: gcc --version
    env: {A: ~, B: "", C: x=y}
    clean_env: true
    stdin: digits/a.txt
`, `--in=dataset=digits@2|--in-rw=base=model@best/sub|--out=model=model.ckpt|--meta=model:type=A=B|--meta=model:x=1|--publish=model=digits-model|--publish=model=other|
--optional-out=metrics=metrics/|--out-from=logs=lightning_logs/|--out=log=a/b.txt|--out-from=log=/tmp/x|--publish=metrics=m|--work=ck|
--param=lr=1e-2|--op-param=n=2|--param=name:str=3|--param=on=true|--param=list=[1,2.50,"x"]|--param=none:null=|
--code=**.py|--code=src/**|--tool=gcc --version|--env=A|--env=B=|--env=C=x=y|--clean-env|--stdin=digits/a.txt`},
		{`
    shell: "cat | wc -l > $CURI_OUT_n"
    out: {n: n}
    env: [A, B=x]
    tools: [a, b]
    code: x
    stdin: "-"
`, `--shell|--out=n=n|--env=A|--env=B=x|--tool=a|--tool=b|--code=x|--stdin=-`},
	} {
		f, err := stages.ParseFile([]byte("stages:\n  t:"+c.yaml), "F")
		if err != nil {
			t.Error(err)
			continue
		}
		want, err := parseStage(append([]string{"--name=t"}, strings.Split(strings.ReplaceAll(c.options, "\n", ""), "|")...))
		if err != nil {
			t.Error(err)
			continue
		}
		got := f.Stages[0].Stage
		slices.SortStableFunc(got.Outputs, func(a, b stages.Output) int { return strings.Compare(a.Name, b.Name) })
		for _, st := range []*stages.Stage{&got, &want} {
			st.Command, st.Dir, st.Environ = nil, "", nil // by another way
			slices.SortFunc(st.Params, func(a, b stages.Param) int { return strings.Compare(a.Name, b.Name) })
			slices.SortFunc(st.Env, func(a, b stages.EnvVar) int { return strings.Compare(a.Name, b.Name) })
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("the file makes\n%+v, the options\n%+v", got, want)
		}
	}
}
