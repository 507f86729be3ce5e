"""What of the data a person should act on: every planted fault is named, and nothing else."""

from dataclasses import replace

import pytest

from finetune.cli.looking import as_plain, summary
from finetune.datasheet.look import BackboneInput, DataLook
from finetune.datasheet.page import render
from finetune.datasheet.pictures import Pair
from finetune.datasheet.reading import Reading
from finetune.datasheet.repeats import Repeats

NAMES = ("cat", "dog", "eel")


def reading(name, *counts):
    labels = tuple(i for i, count in enumerate(counts) for _ in range(count))
    return Reading(name, f"{name} of a test", counts, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (), labels)


SOUND = DataLook(
    "small",
    NAMES,
    8,
    tuple(reading(name, 50, 60, 70) for name in ("train", "validation", "test", "calibration")),
    (),
    BackboneInput((0.0,) * 3, (1.0,) * 3, -1.0, 1.0, "net/bn_1", 0.2, 1.0),
    weighted=False,
    licence=None,
    notes=(),
)


def with_split(place, *counts):
    readings = list(SOUND.readings)
    readings[place] = reading(readings[place].name, *counts)
    return replace(SOUND, readings=tuple(readings))


FAULTS = {
    "5 images of test are in train, too: what is measured on test is too good; take them out of one of the "
    "two": replace(SOUND, repeated=(Repeats(("train", "test"), 5, 0),)),
    "2 images have two different classes in train: correct the labels": replace(
        SOUND, repeated=(Repeats(("train", "train"), 7, 2),)
    ),
    "test has no image of eel: nothing is learnt or known about it there": with_split(2, 90, 90, 0),
    "train has 9.0 times as many images of dog as of eel: set data.class_weights: balanced, and compare by "
    "balanced accuracy": with_split(0, 100, 270, 30),
    "train has fewer than 20 images of cat, eel: keep the statistics frozen, and augment": with_split(
        0, 12, 50, 19
    ),
    "validation has 30 images: an accuracy of .9 is known to about ±11 points there; differences between "
    "policies drown in that": with_split(1, 10, 10, 10),
    "what reaches the first BN site net/bn_1 is 99 nats from its own, more than a change of camera makes: "
    "preprocessing or weights do not belong to this backbone": replace(
        SOUND, reaches=replace(SOUND.reaches, divergence=99.0, implausible=True)
    ),
}


@pytest.mark.parametrize("words", FAULTS, ids=lambda words: words[:30])
def test_a_planted_fault_is_all_that_is_named(words):
    assert FAULTS[words].concerns == (words,)


def test_sound_data_give_no_concern():
    assert SOUND.concerns == ()
    assert (
        summary(SOUND, None).splitlines()[-1] == "✓ no image is in two splits, every class is in every split"
    )


def test_repeats_within_a_split_of_one_class_are_told_but_no_concern():
    look = replace(SOUND, repeated=(Repeats(("train", "train"), 7, 0),))
    assert look.concerns == ()
    assert "7 images of train are there more than once." in render(look, [])


def test_uneven_classes_are_no_concern_where_they_are_weighted():
    assert replace(with_split(0, 100, 270, 30), weighted=True).concerns == ()


def test_names_cannot_break_out_of_the_page():
    look = replace(SOUND, class_names=("<script>alert(1)</script>", "b", "c"))
    page = render(look, [Pair("data:,", "data:,", "<b>bold</b>")])
    assert "<script>alert" not in page
    assert "<b>bold" not in page


def test_json_and_terminal_say_the_same():
    look = with_split(2, 90, 90, 0)
    plain, shown = as_plain(look), summary(look, None)
    assert plain["splits"]["test"]["counts"] == [90, 90, 0]
    assert all(f"! {words}" in shown for words in plain["concerns"])
    assert "first site  net/bn_1: 0.2 sd from what it stores" in shown
