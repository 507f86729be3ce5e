"""The examples for clusters: valid by the schemas of Kubernetes and the manual of Slurm, and what their scripts do.

The scripts run with stand-ins for the commands of a cluster and for `finetune`, which write down how they were called.
"""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from finetune.errors import DivergedError, ProofError

EXAMPLES = Path(__file__).parents[1] / "examples"
MANIFESTS = sorted((EXAMPLES / "kubernetes").glob("*.yaml"))
SCRIPTS = sorted((EXAMPLES / "slurm").glob("*.sbatch"))

SBATCH_OPTIONS = {
    "job-name", "nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "gpus-per-node", "mem", "time",
    "output", "open-mode", "requeue", "signal", "array",
}  # fmt: skip
"""Of sbatch(1), Slurm 22.05 and newer; those that the examples need."""

STAND_INS = {
    "finetune": r"""python3 - "$@" <<'END'
import json, os, sys
with open(os.environ["CALLS"], "a") as file:
    print(json.dumps({"command": sys.argv[1:], "TF_CONFIG": os.environ.get("TF_CONFIG")}), file=file)
END
exit "${FINETUNE_EXITS:-0}"
""",
    "scontrol": r"""if [ "$1" = requeue ]; then echo "$2" >> "$REQUEUED"; else printf 'gpu03\ngpu04\ncpu7\n'; fi
""",
    "srun": r"""while [[ $1 == --* ]]; do shift; done
status=0
for node in 0 1 2; do
  SLURM_NODEID=$node "$@" || { code=$?; if [ "$code" -gt "$status" ]; then status=$code; fi; }
done
exit "$status"
""",
}


@pytest.fixture
def cluster(tmp_path):
    """Runs a script in a folder of its own; says its exit code, what `finetune` was called with, what was put back."""
    for name, text in STAND_INS.items():
        place = tmp_path / "bin" / name
        place.parent.mkdir(exist_ok=True)
        place.write_text(f"#!/bin/bash\n{text}")
        place.chmod(0o755)

    def run(command, **environment):
        calls, requeued = tmp_path / "calls", tmp_path / "requeued"
        for file in (calls, requeued):
            file.write_text("")
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        settings = {"PATH": path, "CALLS": str(calls), "REQUEUED": str(requeued)} | environment
        done = subprocess.run(
            command, env=settings, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        said = [json.loads(line) for line in calls.read_text().splitlines()]
        return done.returncode, said, requeued.read_text().split(), done.stderr

    run.folder = tmp_path
    return run


def documents(name):
    return list(yaml.safe_load_all((EXAMPLES / "kubernetes" / name).read_text()))


def job_in(name):
    return next(each for each in documents(name) if each["kind"] == "Job")


def container(name):
    [found] = job_in(name)["spec"]["template"]["spec"]["containers"]
    return found


def start(cluster, name, **environment):
    """The container's command, its paths below the folder of the test."""
    found = container(name)
    given = {each["name"]: each["value"] for each in found["env"]}
    script = [part.replace("/shared", str(cluster.folder / "shared")) for part in found["args"]]
    given = {key: value.replace("/shared", str(cluster.folder / "shared")) for key, value in given.items()}
    return cluster([*found["command"], *script], **given, **environment)


def checkpoint(runs, *names):
    for name in names:
        folder = runs / name / "checkpoints"
        folder.mkdir(parents=True)
        (folder / "000001.npz").touch()


def accepted(command):
    """Whether our command line takes these arguments; nothing is carried out."""
    import typer

    from finetune.cli import app

    program = typer.main.get_command(app)
    context = program.commands[command[0]].make_context(command[0], command[1:])
    return context.params


def test_there_are_examples():
    assert [path.name for path in MANIFESTS] == ["fine-tune.yaml", "measure.yaml", "publish.yaml"]
    assert [path.name for path in SCRIPTS] == ["fine-tune.sbatch", "measure.sbatch", "publish.sbatch"]


@pytest.mark.parametrize("version", ["1.31", "1.37"])
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.name)
def test_every_manifest_is_valid_by_the_schema_of_kubernetes(path, version):
    import kubernetes_validate

    for document in documents(path.name):
        kubernetes_validate.validate(document, version, strict=True)
    document["spec"]["unheard_of"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_workers_of_a_job_are_as_many_as_it_says_and_find_each_other():
    service, claim, job = documents("fine-tune.yaml")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    [worker] = pod["containers"]
    env = {each["name"]: each["value"] for each in worker["env"]}
    assert spec["completions"] == spec["parallelism"] == int(env["WORKERS"])
    # a headless service gives a pod the name HOSTNAME.SUBDOMAIN
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert {each["name"] for each in worker["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    assert "nvidia.com/gpu" in worker["resources"]["limits"]
    final = [
        rule["onExitCodes"]["values"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule
    ]
    assert final == [[ProofError.exit_code, DivergedError.exit_code]]


@pytest.mark.parametrize("index", [0, 3])
def test_a_worker_of_a_job_starts_with_its_place_among_all(cluster, index):
    code, [call], _, _ = start(cluster, "fine-tune.yaml", JOB_COMPLETION_INDEX=str(index))
    assert code == 0
    assert json.loads(call["TF_CONFIG"]) == {
        "cluster": {"worker": [f"fine-tune-{i}.fine-tune:2222" for i in range(4)]},
        "task": {"type": "worker", "index": index},
    }
    assert accepted(call["command"])["set_"] == ["distribute.strategy=multi_worker"]


def test_a_worker_of_a_job_goes_on_with_the_newest_run_that_has_a_checkpoint(cluster):
    runs = cluster.folder / "shared" / "runs"
    checkpoint(runs, "fine-tune-2", "fine-tune-10", "other-99")
    # begun and ended before its first checkpoint
    (runs / "fine-tune-11").mkdir()
    _, [call], _, _ = start(cluster, "fine-tune.yaml", JOB_COMPLETION_INDEX="1")
    assert accepted(call["command"])["resume"] == runs / "fine-tune-10"


def test_the_shares_of_a_job_are_all_and_are_put_together(cluster):
    count = job_in("measure.yaml")["spec"]["completions"]
    for index in range(count):
        start(cluster, "measure.yaml", JOB_COMPLETION_INDEX=str(index))
        [call] = [json.loads(line) for line in (cluster.folder / "calls").read_text().splitlines()]
        taken = accepted(call["command"])
        assert (taken["shard"], taken["method"]) == (f"{index + 1}/{count}", "one_pass")
        taken["statistics"].touch()
    code, [merge, publish], _, _ = start(cluster, "publish.yaml")
    assert code == 0
    merged = accepted(merge["command"])
    assert sorted(merged["parts"]) == sorted((cluster.folder / "shared" / "shares").glob("part-*.npz"))
    assert accepted(publish["command"])["statistics"] == merged["out"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_every_slurm_script_is_bash_with_options_of_sbatch(path):
    checked = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    lines = path.read_text().splitlines()
    options = [word for line in lines if line.startswith("#SBATCH") for word in shlex.split(line)[1:]]
    assert len(options) >= 7
    assert {option.removeprefix("--").partition("=")[0] for option in options} <= SBATCH_OPTIONS
    # sbatch reads no option behind the first command
    first = next(place for place, line in enumerate(lines) if line and not line.startswith("#"))
    assert not [line for line in lines[first:] if line.startswith("#SBATCH")]


def slurm(cluster, name, *arguments, **environment):
    variables = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "gpu[03-04],cpu7"} | environment
    return cluster(["bash", str(EXAMPLES / "slurm" / name), *arguments], **variables)


def test_the_workers_of_a_slurm_job_start_with_their_places_among_all(cluster):
    code, calls, requeued, _ = slurm(cluster, "fine-tune.sbatch", "photos.yaml")
    assert (code, requeued, len(calls)) == (0, [], 3)
    told = [json.loads(call["TF_CONFIG"]) for call in calls]
    assert [each["task"] for each in told] == [{"type": "worker", "index": index} for index in range(3)]
    assert [each["cluster"] for each in told] == [
        {"worker": [f"{host}:24711" for host in ("gpu03", "gpu04", "cpu7")]}
    ] * 3
    taken = accepted(calls[0]["command"])
    assert (str(taken["recipe"]), taken["name"]) == ("photos.yaml", "fine-tune-4711")


@pytest.mark.parametrize(
    ("code", "earlier", "again"),
    [
        (0, "0", False),
        (2, "0", False),
        (6, "0", False),
        (1, "3", True),
        (130, "19", True),
        (130, "20", False),
    ],
)
def test_a_slurm_job_is_put_back_where_it_can_go_on_but_not_for_ever(cluster, code, earlier, again):
    told = {"FINETUNE_EXITS": str(code), "SLURM_RESTART_COUNT": earlier}
    ended, _, requeued, _ = slurm(cluster, "fine-tune.sbatch", "photos.yaml", **told)
    assert (ended, requeued) == (code, ["4711"] if again else [])


def test_a_slurm_job_that_was_put_back_goes_on_with_its_own_run(cluster):
    checkpoint(cluster.folder / "runs", "fine-tune-4711-1", "fine-tune-4712-9")
    _, calls, _, _ = slurm(cluster, "fine-tune.sbatch", "photos.yaml")
    assert {str(accepted(call["command"])["resume"]) for call in calls} == {"runs/fine-tune-4711-1"}


def test_the_shares_of_a_slurm_array_are_put_together(cluster):
    given = ("models/shirts", "today", "shares")
    for task in ("1", "2"):
        _, [call], _, _ = slurm(
            cluster, "measure.sbatch", *given, SLURM_ARRAY_TASK_ID=task, SLURM_ARRAY_TASK_COUNT="2"
        )
        taken = accepted(call["command"])
        assert (taken["shard"], str(taken["images"])) == (f"{task}/2", "today")
        (cluster.folder / taken["statistics"]).touch()
    _, [merge, publish], _, _ = slurm(cluster, "publish.sbatch", *given)
    merged = accepted(merge["command"])
    assert [str(part) for part in merged["parts"]] == ["shares/part-1.npz", "shares/part-2.npz"]
    assert accepted(publish["command"])["statistics"] == merged["out"]


def test_a_slurm_script_says_what_it_is_to_be_given(cluster):
    code, calls, _, said = slurm(cluster, "measure.sbatch", "models/shirts", SLURM_ARRAY_TASK_ID="1")
    assert (code, calls) == (1, [])
    assert "expected three arguments" in said
