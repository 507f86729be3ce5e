"""Every bad recipe is answered with one line a problem: place, what was expected, what was found."""

import pytest

from finetune.errors import RecipeError
from finetune.recipe_file import load_text
from tests.recipe_file import GOOD


def problems(text, *overrides):
    with pytest.raises(RecipeError) as caught:
        load_text(text, "x.yaml", overrides)
    return list(caught.value.problems)


# what replaces which line of the good recipe, and what is said about it
SPOILED = {
    "wrong type for a whole number": (
        "epochs: 2",
        "epochs: five",
        "x.yaml:12 stages[0].epochs: expected a whole number, got 'five'",
    ),
    "a fraction for a whole number": (
        "epochs: 2",
        "epochs: 2.5",
        "x.yaml:12 stages[0].epochs: expected a whole number, got 2.5",
    ),
    "a quoted number": (
        "epochs: 2",
        "epochs: '2'",
        "x.yaml:12 stages[0].epochs: expected a whole number, got '2'",
    ),
    "a switch for a number": (
        "epochs: 2",
        "epochs: true",
        "x.yaml:12 stages[0].epochs: expected a whole number, got true",
    ),
    "nothing for a number": (
        "epochs: 2",
        "epochs:",
        "x.yaml:12 stages[0].epochs: expected a whole number, got nothing",
    ),
    "too small": (
        "epochs: 2",
        "epochs: 0",
        "x.yaml:12 stages[0].epochs: expected a number of at least 1, got 0",
    ),
    "not above a bound": (
        "1e-1",
        "-1e-1",
        "x.yaml:13 stages[0].learning_rate: expected a number above 0, got -0.1",
    ),
    "not finite": (
        "1e-1",
        ".inf",
        "x.yaml:13 stages[0].learning_rate: expected a finite number, got inf",
    ),
    "text for a number": (
        "1e-1",
        "fast",
        "x.yaml:13 stages[0].learning_rate: expected a number, got 'fast'",
    ),
    "too large": (
        "1e-1",
        "1e-1\n    warmup: 1.5",
        "x.yaml:14 stages[0].warmup: expected a number of at most 1, got 1.5",
    ),
    "not below a bound": (
        "1e-1",
        "1e-1\n    momentum: 1",
        "x.yaml:14 stages[0].momentum: expected a number below 1, got 1",
    ),
    "a momentum that nobody uses": (
        "1e-1",
        "1e-1\n    optimizer: adam\n    momentum: 0.5",
        "x.yaml:15 stages[0].momentum: only optimizer sgd has a momentum, not adam; leave it out",
    ),
    "one of several words, misspelt": (
        "train: head",
        "train: heads",
        "x.yaml:11 stages[0].train: expected 'head' or 'everything', got 'heads'; did you mean 'head'?",
    ),
    "an unknown key in the long form of train": (
        "train: head",
        "train: {form: conv4}",
        [
            "x.yaml:11 stages[0].train.from: missing; this key is required",
            "x.yaml:11 stages[0].train.form: unknown key 'form'; did you mean 'from'?",
        ],
    ),
    "one of several things": (
        "finish: none",
        "momentum: automatic",
        "x.yaml:9 batchnorm.momentum: expected 'auto' or 'keep' or a number, got 'automatic'; did you mean 'auto'?",
    ),
    "an unknown key": (
        "finish: none",
        "finsh: none",
        "x.yaml:9 batchnorm.finsh: unknown key 'finsh'; did you mean 'finish'?",
    ),
    "an unknown key like no other": (
        "finish: none",
        "colour: red",
        "x.yaml:9 batchnorm.colour: unknown key 'colour'; expected policy, sites, momentum, finish, samples, "
        "method or freeze_last_epochs",
    ),
    "an unknown key at the top": (
        "backbone:",
        "sed: 3\nbackbone:",
        "x.yaml:1 sed: unknown key 'sed'; did you mean 'seed'?",
    ),
    "an unknown policy": (
        "policy: retrain",
        "policy: retain",
        "x.yaml:8 batchnorm.policy: expected 'freeze', 'recalibrate', 'retrain', 'affine' or 'statistics',"
        " got 'retain'; did you mean 'retrain'?",
    ),
    "no policy": (
        "  policy: retrain\n",
        "",
        "x.yaml:7 batchnorm.policy: missing; expected 'freeze', 'recalibrate', 'retrain', 'affine' or 'statistics'",
    ),
    "an unknown source of data": (
        "source: tfds",
        "source: tdfs",
        "x.yaml:4 data.source: expected 'tfds', 'image_folder', 'image_table' or 'arrays', "
        "got 'tdfs'; did you mean 'tfds'?",
    ),
    "a missing key": (
        "    epochs: 2\n",
        "",
        "x.yaml:11 stages[0].epochs: missing; this key is required",
    ),
    "a missing section": (
        "backbone:\n  source: bundled\n",
        "",
        "x.yaml:1 backbone: missing; this key is required",
    ),
    "a value where a section belongs": (
        "  policy: retrain\n  finish: none\n",
        "  freeze\n",
        "x.yaml:7 batchnorm: expected a section of keys and values, got 'freeze'",
    ),
    "a list where a section belongs": (
        "{kind: fog, severity: 3}",
        "[fog, 3]",
        "x.yaml:6 data.shift: expected a section of keys and values, got a list of 2",
    ),
    "a section where a list belongs": (
        "  - train: head\n    epochs: 2\n",
        "    train: head\n    epochs: 2\n",
        "x.yaml:10 stages: expected a list, got a section",
    ),
    "a name that is a number": (
        "name: fashion_shift",
        "name: 1.5",
        "x.yaml:5 data.name: expected text, got 1.5; put it in quotes to make it text",
    ),
    "a name that is no file name": (
        "backbone:",
        "name: a/b\nbackbone:",
        "x.yaml:1 name: expected at most 100 letters, digits, '-', '_' and '.', first a letter or digit, got 'a/b'",
    ),
    "empty text": (
        "train: head",
        "train: {from: ''}",
        "x.yaml:11 stages[0].train.from: expected text of 1 or more characters, got ''",
    ),
    "a word for a switch": (
        "backbone:",
        "tracking: {enabled: yes}\nbackbone:",
        "x.yaml:1 tracking.enabled: expected true or false, got 'yes'",
    ),
    "all epochs of the last stage frozen": (
        "finish: none",
        "freeze_last_epochs: 2",
        "x.yaml:9 batchnorm.freeze_last_epochs: expected fewer than the 2 epochs of the last stage, got 2",
    ),
    "a size that is none": (
        "policy: retrain\n  finish: none",
        "policy: recalibrate\n  memory: 2GX",
        "x.yaml:9 batchnorm.memory: expected a size, as in 2GB, got '2GX'",
    ),
    "an average of the weights that keeps everything": (
        "1e-1",
        "1e-1\n    ema: 1",
        "x.yaml:14 stages[0].ema: expected a number below 1, got 1",
    ),
    "draws of images that are never changed": (
        "1e-1",
        "1e-1\n    cached_views: 3",
        "x.yaml:14 stages[0].cached_views: without data.augment all draws of an image are the same; leave it out, or"
        " name augmentations",
    ),
    "no rules": (
        "  policy: retrain\n  finish: none\n",
        "  []\n",
        "x.yaml:7 batchnorm: expected a list of 1 or more, got an empty list",
    ),
    "rules, each spoiled in its own way": (
        "  policy: retrain\n  finish: none\n",
        "  - {policy: retain}\n  - {policy: freeze, prior: 2}\n  - 3\n  - {sites: '', policy: freeze}\n",
        [
            "x.yaml:8 batchnorm[0].policy: expected 'freeze', 'recalibrate', 'retrain', 'affine' or 'statistics',"
            " got 'retain'; did you mean 'retrain'?",
            "x.yaml:9 batchnorm[1].prior: unknown key 'prior'; expected policy or sites",
            "x.yaml:10 batchnorm[2]: expected a section of keys and values, got 3",
            "x.yaml:11 batchnorm[3].sites: expected text of 1 or more characters, got ''",
        ],
    ),
    "a key given twice": (
        "epochs: 2",
        "epochs: 2\n    epochs: 3",
        "x.yaml:13 stages[0].epochs: given twice, first on line 12",
    ),
    "a key that is a list": (
        "finish: none",
        "? [a]\n  : 1",
        "x.yaml:9 batchnorm: a key must be text, not a list or a section",
    ),
    "a tag": (
        "epochs: 2",
        "epochs: !!python/object/apply:os.getcwd []",
        "x.yaml:12: YAML tag 'tag:yaml.org,2002:python/object/apply:os.getcwd' is not read; write the plain value",
    ),
    "not YAML": (
        "epochs: 2",
        "epochs: 2: 3",
        "x.yaml:12: not YAML: mapping values are not allowed in this context",
    ),
    "a tab": (
        "    epochs: 2",
        "\tepochs: 2",
        "x.yaml:12: not YAML: while scanning a plain scalar found a tab character that violates indentation;"
        " indent with spaces, not tabs",
    ),
}


@pytest.mark.parametrize(("old", "new", "said"), SPOILED.values(), ids=SPOILED)
def test_one_spoiled_key_is_named_with_its_line(old, new, said):
    spoiled = GOOD.replace(old, new, 1)
    assert spoiled != GOOD
    assert problems(spoiled) == ([said] if isinstance(said, str) else said)


def test_all_problems_are_told_at_once_in_the_order_of_the_lines():
    spoiled = GOOD.replace("epochs: 2", "epochs: five").replace("policy: retrain", "policy: x") + "sed: 1\n"
    assert [line.split(":")[1].split()[0] for line in problems(spoiled)] == ["8", "12", "14"]


def test_stages_may_not_be_empty():
    text = GOOD[: GOOD.index("stages:")] + "stages: []\n"
    assert problems(text) == ["x.yaml:10 stages: expected a list of 1 or more, got an empty list"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "x.yaml: empty; a recipe has the sections backbone, data, batchnorm and stages"),
        ("# nothing\n", "x.yaml: empty; a recipe has the sections backbone, data, batchnorm and stages"),
        (
            "# first\n- a\n",
            "x.yaml:2: expected keys and values, got a list;"
            " a recipe has the sections backbone, data, batchnorm and stages",
        ),
        (
            "word",
            "x.yaml:1: expected keys and values, got a single value;"
            " a recipe has the sections backbone, data, batchnorm and stages",
        ),
        (
            "a: 1\n---\nb: 1\n",
            "x.yaml:2: not YAML: expected a single document in the stream but found another document",
        ),
        ("a: \x00", "x.yaml:1: not YAML: it holds characters that YAML does not allow"),
        ("a: \ud800", "x.yaml:1: not YAML: it holds characters that YAML does not allow"),
        ("\n" + "[" * 21, "x.yaml:2: nested deeper than 20 levels"),
        ("\n" + "[" * 100_000, "x.yaml:2: nested deeper than 20 levels"),
        ("a: &a [*a]", "x.yaml:1: more than 10000 values or 20 levels, with aliases written out"),
    ],
)
def test_text_that_is_no_recipe_at_all_is_told_in_one_line(text, said):
    assert problems(text) == [said]


def test_aliases_of_aliases_are_not_written_out_without_end():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
    assert problems(bomb) == ["x.yaml:1: more than 10000 values or 20 levels, with aliases written out"]


def test_a_long_value_is_cut_in_the_message():
    (said,) = problems(GOOD.replace("epochs: 2", f"epochs: {'x' * 5000}"))
    assert len(said) < 150
