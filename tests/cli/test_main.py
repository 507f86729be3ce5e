"""The entry point: exit codes, words instead of tracebacks, and nothing heavy before it is needed."""

import errno
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from finetune.cli import app
from finetune.errors import DataError, DivergedError, FinetuneError, ProofError

ROOT = Path(__file__).parents[2]
GOOD = ROOT / "recipes" / "resnet_freeze.yaml"
COMMANDS = typer.main.get_command(app).commands

START = "from finetune.cli import main; main()"


@pytest.fixture
def run_that(monkeypatch):
    """Puts a run in place that only raises."""

    def raising(error):
        def run(*_, **__):
            raise error

        monkeypatch.setitem(sys.modules, "finetune.run", SimpleNamespace(run=run))

    return raising


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (FinetuneError("it failed"), 1, "error: it failed\n"),
        (DataError(["one", "two"]), 2, "error: one\nerror: two\n"),
        (ProofError("moved"), 5, "error: moved\n"),
        (DivergedError("NaN at step 3"), 6, "error: NaN at step 3\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/a"),
            2,
            "error: no space left for runs/a; make room and run it again\n",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            2,
            "error: no space left; make room and run it again\n",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_goes_wrong_is_said_in_words_with_its_exit_code(finetune, run_that, error, code, said):
    run_that(error)
    assert finetune("run", GOOD, "--quiet") == (code, "", said)


def test_a_mistake_in_the_program_keeps_its_traceback(finetune, run_that):
    run_that(ZeroDivisionError("a mistake"))
    with pytest.raises(ZeroDivisionError):
        finetune("run", GOOD, "--quiet")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chek"], "No such command 'chek'. Did you mean 'check'"),
        (["list", "things"], "'things' is not one of 'policies', 'backbones', 'datasets', 'recipes'"),
        (["check"], "Missing argument"),
        (["ui", "--port", "0"], "--port"),
    ],
)
def test_a_bad_argument_leaves_with_2(finetune, arguments, said):
    answer = finetune(*arguments)
    assert answer.code == 2
    assert said in answer.err


def test_the_exit_codes_are_in_the_help(finetune):
    help_text = finetune("--help").out
    for code in (
        "0 ok",
        "1 failure",
        "2 bad input",
        "5 the policy did not hold",
        "6 the training diverged",
        "130",
    ):
        assert code in help_text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_in_its_help(finetune, command):
    assert f"\n  finetune {command}" in finetune(command, "--help").out


def test_there_are_twenty_two_commands():
    training = {
        "init",
        "cp",
        "data",
        "rates",
        "probe",
        "run",
        "check",
        "show",
        "list",
        "schema",
        "evaluate",
        "export",
        "import",
        "ui",
        "sync",
    }
    service = {"recalibrate", "merge-statistics", "drift", "history", "rollback"}
    assert set(COMMANDS) == training | service | {"compare", "doctor"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme(command):
    assert f"finetune {command}" in (ROOT / "README.md").read_text()


def test_the_version_is_shown(finetune):
    assert finetune("--version").out.startswith("finetune 0.")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["check", str(GOOD)], ["show", str(GOOD)], ["list", "policies"]]
)
def test_nothing_heavy_is_imported_before_it_is_needed(arguments):
    heavy = {"tensorflow", "keras", "keras_cv", "tensorflow_datasets", "numpy", "mlflow", "matplotlib", "PIL"}
    code = f"""
import sys
from finetune.cli import main
try:
    main()
except SystemExit as left:
    assert not left.code, left.code
print("imported:", sorted({heavy!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.endswith("imported: []\n"), done.stderr


def test_a_closed_pipe_is_no_matter():
    command = [sys.executable, "-c", START, "schema"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        process.stdout.close()
        assert process.stderr.read() == b""


def test_the_shell_can_complete_commands():
    asked = {"_FINETUNE_COMPLETE": "complete_bash", "COMP_WORDS": "finetune eval", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, env=asked, cwd=ROOT)
    assert done.stdout.split() == ["evaluate"]
