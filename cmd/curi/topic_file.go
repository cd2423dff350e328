package main

const fileTopic = `A project keeps its stages in curi.yaml. A stage of it is what "curi stage exec" runs
with options, and has the same key; it runs in the file's directory.

    stages:
      dataset:
        run: [python, make_dataset.py, --out, "{out.dataset}", --seed, "{param.seed}"]
        params: {seed: 7}
        out: {dataset: dataset/}
      train:
        run: [torchrun, --nproc_per_node, "{param.num_gpus}", train.py, "{in.dataset}",
              "{out.model}", --lr, "{param.lr}", "--ckpt_path={resume}"]
        code: ["external/**/*.py"]
        in: {dataset: dataset.dataset}     # STAGE.OUTPUT, or any other REF
        out: {model: {path: model.ckpt, meta: {type: ModelType1}}}
        work: [checkpoints]
        params: {lr: 0.01, num_gpus: 2}
        operational: [num_gpus]            # recorded, not keyed
        resources: {gpus: "{param.num_gpus}"}
        via: env                           # run need not name everything
      compare:
        aggregate: train                   # runs once, over all parameter sets of train
        run: [python, compare.py, "{in.models}", "{out.table}"]
        in: {models: train.model}
        out: {table: table.csv}
    parameter_sets:
      base: {}
      small-lr: {lr: 0.001}
      sweep: {grid: {lr: [0.1, 0.01], seed: [1, 2]}}

Keys of a stage: run or shell, code, in, in_rw, out (a path, or path, from, optional,
meta, publish), work, params, operational, aggregate, via, tools, env, clean_env, stdin,
timeout, grace, publish, retries, resume, snapshot, resources, launcher.
docs/curi-yaml.md tells all of each, and "curi stage schema" tells editors.

A parameter set changes values of parameters that stages have. The first counts where
no --set is given. A grid is the product of its lists; its points are sets of their own
("sweep/lr=0.1,seed=2"), and "--set sweep" is all of them. Sets that make no difference
for a stage and what it needs share its result.
`
