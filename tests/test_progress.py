"""What a person sees: one line an epoch in a log, a bar on a terminal, nothing when quiet."""

import io

from rich.console import Console

from finetune.progress import BarProgress, LineProgress, Progress

METRICS = {"train/loss": 0.5, "validation/accuracy": 0.25}


def tell(progress):
    progress.stage("stage 1 of 1: train head", epochs=2, steps=3, batch_size=4)
    for epoch in (1, 2):
        for step in (1, 2, 3):
            progress.batch(step, loss=0.5, accuracy=0.25)
        progress.epoch(epoch, METRICS)
    progress.close()


def written(kind, terminal):
    out = io.StringIO()
    tell(kind(Console(file=out, force_terminal=terminal, width=100)))
    return out.getvalue()


def test_a_log_gets_one_line_an_epoch_and_no_control_characters():
    lines = written(LineProgress, terminal=False).splitlines()
    assert lines[0] == "stage 1 of 1: train head"
    assert [line.split("  ")[1:4] for line in lines[1:]] == [
        ["epoch 1/2", "train/loss 0.5", "validation/accuracy 0.25"],
        ["epoch 2/2", "train/loss 0.5", "validation/accuracy 0.25"],
    ]
    assert lines[2].endswith("images/s  0:00 left")
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_the_same_lines_under_a_bar():
    text = written(BarProgress, terminal=True)
    assert "epoch 2/2  train/loss 0.5" in text
    assert "loss 0.500  accuracy 0.250" in text


def test_closing_twice_is_harmless():
    progress = BarProgress(Console(file=io.StringIO(), force_terminal=True))
    progress.stage("stage", 1, 1, 1)
    progress.close()
    progress.close()


def test_quiet_says_nothing(capsys):
    tell(Progress())
    assert capsys.readouterr() == ("", "")


def test_words_in_brackets_are_shown_as_they_are():
    out = io.StringIO()
    LineProgress(Console(file=out, width=40)).note(
        "classes [bold]a[/bold] and a line that is longer than the console"
    )
    assert out.getvalue() == "note: classes [bold]a[/bold] and a line that is longer than the console\n"


def test_an_epoch_that_goes_on_begins_at_its_step():
    progress = BarProgress(Console(file=io.StringIO(), force_terminal=True))
    progress.stage("stage", epochs=4, steps=10, batch_size=4, done=2, step=5)
    [bar] = progress.bar.tasks
    assert 2.4 < bar.completed < 2.6
    progress.batch(6, 0.5, 0.25)
    assert progress.rate(6) == 0
    progress.latest = progress.first + 2.0
    assert progress.rate(10) == 4 * 4 / 2.0
    progress.epoch(3, METRICS)
    progress.latest = progress.first + 2.0
    assert progress.rate(10) == 9 * 4 / 2.0
    progress.close()


def test_an_epoch_that_has_its_validation_left_only_has_no_rate():
    out = io.StringIO()
    progress = LineProgress(Console(file=out, width=200))
    progress.stage("stage", epochs=1, steps=10, batch_size=4, done=0, step=10)
    progress.epoch(1, METRICS)
    assert out.getvalue().splitlines()[-1].endswith("0 images/s  0:00 left")
