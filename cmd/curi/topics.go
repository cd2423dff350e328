package main

import "github.com/spf13/cobra"

// A topic is a page of `curi help` that belongs to no single command. Its text
// is plain, and Markdown at the same time: docs/commands.md has it too.
type topic struct{ name, short, text string }

func topics() []*cobra.Command {
	var cs []*cobra.Command
	for _, t := range topicList {
		cs = append(cs, &cobra.Command{Use: t.name, Short: t.short, Long: t.text})
	}
	return cs
}

var topicList = []topic{
	{"conventions", "What holds for every command", `The store is --store DIR, else $CURI_STORE, else "store:" in the project's
.curi/config.yaml or the user's config.yaml, else $XDG_DATA_HOME/curi (or
~/.local/share/curi). It is made at first use. "curi config" says which it is,
and where every other setting comes from.

The project is the nearest directory above the current one with a curi.yaml,
else git's top level, else the current directory. Its name is "project:" in
curi.yaml, else that of git's remote, else the directory's.

Results go to stdout, everything else to stderr. --json prints one JSON object
or array on stdout ("curi help json"); fields are only ever added. --quiet says
less: tables shrink to their first column, one name a line. --verbose says more.
Long work shows a progress bar where stderr is a terminal, else a line now and
then.

Bad input gets one line on stderr that begins with "curi:" and names the thing
and the way out; the exit status tells what kind of failure it was ("curi help
exit").
`},
	{"ref", "How things are named", `A REF names something in the store:

    NAME                the newest version of an artifact
    NAME@3              that version
    NAME@best           the version with that tag
    STAGE.OUTPUT        an output of the newest successful run of a stage in this
                        project; an error that lists them where runs with other
                        parameters are as good a guess
    STAGE[lr=0.05].OUTPUT   picks by parameters; a text with commas or brackets
                        stands in double quotes: STAGE[note="a,b"].OUTPUT
    RUN                 a run: train-7f3k2m, or train@last
    RUN.OUTPUT          an output of it
    RUN.work/NAME       a work directory of it
    DIGEST              64 hex digits, or an unambiguous prefix of 8 or more
    REF/PATH            goes into any of them; links in PATH are followed

Names have letters, digits, "_" and "-", at most 100 bytes, and are neither 8 or
more hex digits alone nor all digits. An artifact of a single file means that
file for "curi cat", "curi path" and {in.N}; a mount shows it as
artifacts/NAME/FILE.
`},
	{"exit", "Exit statuses", `"curi stage exec" and "curi shell" exit with the command's own status: 128+n
where signal n ended it, 130 and 143 where the run was interrupted. Curi's own
failures are:

    120   usage: an option, a name or a stage that can never be right
    121   not found: no such artifact, version, tag, run, digest, file or store
    122   corrupt: bytes that are not what their digest says
    123   trouble of the store or of a mount: busy, no space, no permission,
          another format, no /dev/fuse
    124   the stage is refused: an output is missing, empty or nothing that can be
          stored, the holder of the stage's lock shows no sign of life, …
    125   internal: a bug, or something that nobody foresaw

With --launcher slurm the status is that of the command in the job as well. Where
Slurm ended the job before the run could say how it ended, it is

    143   CANCELLED (130 by Ctrl-C), TIMEOUT, DEADLINE, PREEMPTED and not requeued
    137   OUT_OF_MEMORY
    124   sbatch did not take the job
    123   NODE_FAIL, BOOT_FAIL, FAILED before the stage began, or a job that Slurm
          does not know any more
    129   SIGHUP here, and 143 SIGTERM here: the job goes on

"curi fsck" exits with 122 where it found something bad, "curi diff --exit-code"
with 1 where something differs.
`},
	{"placeholders", "What a stage's command may contain", `Placeholders in the command of a stage are replaced before it starts. Paths are
absolute. An unknown placeholder is an error; {{ and }} are braces.

    {in.N}              path of input N: the file of a single-file artifact, else
                        the directory
    {out.N}             path of output N
    {work.N}            path of work directory N
    {param.N}           parameter N as it was written; a list that is a whole
                        element becomes one element an item
    {param.N:json}      the same as JSON, always one element
    {meta.IN.KEY}       metadata KEY of input IN
    {secret.VAR}        variable VAR of the environment, never keyed, recorded and
                        printed as its name only, masked in the kept log
    {root}              the directory below which all places of the run lie
    {logs}              the directory for logs of ranks
    {run}               the run's id
    {resume}            the newest complete checkpoint. Without one, an element
                        that is only {resume} drops out together with the option
                        before it, and --flag={resume} as a whole
`},
	{"key", "What makes a stage's key", `The result of a stage is found by its key. "curi stage explain" shows what it is
made of, one component a line:

    the command         each element, placeholders as they are written
    its directory       relative to the project
    inputs              by name and content, metadata included; which artifact or
                        version it was does not matter
    parameters          by name, type and value: 1e-2 is 0.01, 1 is not 1.0
    code                files of the project, by path and content
    --env, --tool, --stdin, --clean-env
    outputs             with their --meta, and work directories
    --resume-from       by the run's id

Not in it: the stage's name, --publish, --op-param, time limits, the mount point,
user and host, variables that --env does not name, and never those that launchers
of ranks set (RANK, WORLD_SIZE, SLURM_*, …).

Code is, without being asked for:

    each element of the command, or part of it behind "=", that is a file of the
    project, and a program that PATH finds in it
    the module behind -m or --module, looked up in the current directory, src/,
    PYTHONPATH and the project's own directory
    the project's Python files that these import, wherever the import stands,
    in the cells of a notebook too

The words of a text for a shell count as elements. A path in the command that is
neither input, output nor code, and a module that is not found, get a warning:
changes there go unseen.

Unseen without a warning are files that a program opens by itself, modules that
are imported by a name made at run time or from a directory that a script adds to
sys.path, what a script for a shell starts in turn, and what is installed:
--code GLOB names files, --tool 'pip freeze' what is installed. What git, Curi and
Python's caches keep is never code, nor are the programs of a virtual environment.
`},
	{"environment", "Variables that Curi reads and sets", `Curi reads:

    CURI_STORE          the store
    SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_JOB_ID, PET_NODE_RANK, PET_NNODES,
    PET_RDZV_ID, OMPI_COMM_WORLD_RANK, PMI_RANK, …   with --per-node: which node
                        this is, of how many, and of which run
    XDG_DATA_HOME       where the default store is
    XDG_CONFIG_HOME     where the user's configuration is
    CURI_DEBUG          not empty: stack traces where Curi itself fails

The command of a stage finds:

    CURI_RUN            the run's id
    CURI_ROOT           as {root}
    CURI_ATTEMPT        counts the tries since the work directories were empty
    CURI_NODE, CURI_NODES   with --per-node: which node this is, from 0, and how many
                        there are; torchrun's PET_NODE_RANK, PET_NNODES and
                        PET_RDZV_ID are set, too, unless they are
    CURI_RESUME         1 where work directories of an earlier try are there, or
                        a copy of another run's
    CURI_IN_<N>         as {in.N}, and so for CURI_OUT_<N>, CURI_WORK_<N> and
                        CURI_PARAM_<N>
    CURI_PARAMS         a JSON file of all parameters
    CURI_META           a file: append OUT:KEY=VALUE lines to describe outputs
    CURI_META_<IN>_<KEY>   metadata of inputs
    TMPDIR              on the filesystem of the outputs, at most 60 bytes long
    TORCHINDUCTOR_CACHE_DIR   where it would have been without that TMPDIR
    PET_LOG_DIR, PET_REDIRECTS, PET_TEE   for torchrun, unless set: the ranks' logs
                        go to {logs}, live output stays. What torchrun shows
                        live it begins with the rank, as in [default0]:, because
                        it tees: PET_TEE=0 before curi, or --tee 0 after torchrun,
                        turns that off, and the logs of ranks in {logs} with it
    PYTHONUNBUFFERED    1 where the output does not go straight to a terminal,
                        unless set
`},
	{"curi.yaml", "The stages of a project", fileTopic},
	{"watch", "Watching a mount", watchTopic},
	{"json", "The shapes of --json", jsonTopic},
}

const jsonTopic = `Every command that reports something takes --json and prints one object or array.
Fields are only ever added. Digests are 64 hex digits, or "" where there is none;
sizes are bytes; times are RFC 3339.

    add         {"name","version","digest","tree","bytes","files","new"}; digest is
                the file's own for a single file, else the tree's
    ls          [{"name","version","tags","tree","kind","bytes","made_by","time",
                "local"}]; local is whether all of it is here
    show        {"name","version","tags","digest","tree","kind","bytes","files",
                "local_bytes","meta","made_by","time","ref","file"}; for a run also "run",
                for a work directory "path"
    path        {"path"}
    checkout    {"name","path","tree"}
    diff        [{"path","change","old_digest","new_digest","old_bytes","new_bytes",
                "detail"}]; change is "added", "removed", "changed" or "meta"
    tag         {"name","version","tags"}
    meta        {"name","version","meta","new"}
    rm          {"removed":[{"name","version","tree"}],"run"}
    stage exec  {"run","stage","key","cached","exit_status","seconds",
                "outputs":{N:{"digest","tree","bytes","files","path"}}}; of a job of
                Slurm also "job", its number; "run" is "" where a signal came before
                there was one. attach prints the same
    stage exec --dry-run   {"key","cached","remote","command":[]}; remote is the one
                that has the result, or "" for the store itself; of stages of
                curi.yaml also "tasks", as of stage status with "command"; key is ""
                while what the stage needs is stale
    stage exec STAGE   one stage with one parameter set: as above; of several, events as
                they happen, each an object on a line of its own: {"event","stage",
                "sets",…}; event is "started", "waiting" ("text" says for what),
                "finished" and "failed" (with "run","key","cached","exit_status",
                "seconds" and, where it was run or asked for, "outputs", by Slurm
                "job"), "array" (the stage's sets are a job array of Slurm, as "text"
                says), "skipped" ("text" says why), "warning", and at last "summary":
                {"event","ran","submitted","cached","failed","skipped","exit_status",
                "seconds"}; submitted are jobs that are not waited for. What the
                commands print goes to stderr, each line behind its stage's name
    stage explain   {"key","cached","run","remote","command":[],"preimage":[],
                "nearest":{"run","changes":[{"old","new"}]}}; nearest is null on a hit; an
                array for several stages
    stage list  [{"stage","inputs":{N:REF},"outputs","work","params","aggregate","line"}]
    stage status   [{"stage","sets","status","why","run","key"}]; status is "cached",
                "stale", "queued", "running", "failed" or "error"
    stage check {"file","stages","sets","problems":[{"line","column","message"}]}
    stage graph {"nodes":[{"id","kind","name","aggregate","layer"}],"edges":[{"from",
                "to","as","output"}]}; kind is "stage" or "artifact"
    init        {"file","stages","scripts"}
    shell       {"run","exit_status","path","saved"}; saved is as of add, or null
    log         [{"run","stage","project","key","status","exit_status","attempt",
                "started","ended","seconds","params","op_params","outputs","work",
                "job","same_as","differs":[{"remote","run","by","tree"}]}]; job is Slurm's number of the job that it is part
                of, or ""; same_as is the run whose result it took, or ""; differs
                has the results of the same key on remotes whose outputs are others;
                for one RUN also "record" and "log"
                with --metric also "metrics", name → newest value or null
    metrics     [{"run","status","metrics":[{"name","last","step","min","max","count"}]}];
                with --points also "points", lists of step and value; what JSON has
                no number for is a string ("NaN")
    metrics diff  {"a","b","metrics":[{"name","a","b","change"}],
                "params":[{"name","a","b","operational"}]}; null where there is none
    lineage     {"nodes":[{"id","kind","name","tree","stage","project","params",
                "names","time"}],"edges":[{"from","to","as"}]}
    mount       {"id","dir","pid","passthrough","reason","allow_other","metrics",…};
                metrics is HOST:PORT, or ""
    umount      {"unmounted":[]}
    store init  {"store","id"}
    status      {"store","store_from","id","filesystem","reflinks","free_bytes",
                "mounts":[{"dir","passthrough","reason","auto","pid","allow_other",
                "metrics","stats"}],"stale":[],"running":[{"run","stage","project",
                "key","attempt","started","job","state"}],"queued":[the same of jobs
                that wait],"owed":[{"remote","results","failed"}]}; stats is
                what "curi help watch" tells; owed are results of stages that are to
                be published and are not yet, failed is why the last attempt did, or ""
    du          [{"name","kind","own_bytes","shared_bytes"}]
    gc          {"removed_blobs","removed_bytes","kept_blobs","removed_results",
                "removed_refs","removed_trees","removed_places","dry_run"}
    fsck        {"blobs_checked","bad":[{"digest","reason","used_by":[]}]}
    remote ls   [{"name","url","policy","artifacts","added"}]; add: one of these
    remote gc   {"remote","removed","removed_bytes","listed","listed_bytes","due",
                "kept","dry_run"}; due is when what is listed may be removed
    remote fsck {"remote","trees","packs","bytes","bad":[{"object","reason",
                "used_by":[],"removed"}]}
    push        [{"name","version","tree","bytes","files","sent","new"}]; sent is the
                bytes that were uploaded
    push --wait {"published"}; how many results were brought
    pull        [{"name","version","tree","bytes","files","local"}]
    config      [{"name","value","from","usage"}]; one object for a NAME
    version     {"version","go","platform"}
`
