"""Ctrl-C once waits for the step, twice does not; what others made of a signal is given back."""

import gc
import signal
import sys
import threading
import time

import pytest

from finetune.interruption import comes_again, first_signal_waits, stays_an_interruption

BOTH = [signal.SIGINT, signal.SIGTERM]


class Once(Exception):
    pass


def end_now(number, frame):
    raise Once(number)


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.signal(number, end_now) for number in BOTH}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", BOTH)
def test_the_first_is_noted_and_ends_the_block_at_the_latest(number):
    def block():
        with first_signal_waits() as asked:
            reached.append(asked())
            signal.raise_signal(number)
            reached.append(asked())

    reached = []
    with pytest.raises(KeyboardInterrupt):
        block()
    assert reached == [False, True]


@pytest.mark.parametrize("first", BOTH)
@pytest.mark.parametrize("second", BOTH)
def test_the_second_does_what_it_would_have_done(first, second):
    def block():
        with first_signal_waits():
            signal.raise_signal(first)
            signal.raise_signal(second)
            pytest.fail("the block went on")

    with pytest.raises(Once, match=str(second)):
        block()


def test_what_goes_wrong_inside_is_told_and_not_the_signal():
    def block():
        with first_signal_waits():
            signal.raise_signal(signal.SIGINT)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        block()


def test_all_is_given_back():
    with first_signal_waits():
        assert signal.getsignal(signal.SIGINT) is not end_now
    for number in BOTH:
        assert signal.getsignal(number) is end_now


def test_a_signal_that_is_ignored_stays_so():
    """`nohup` does it, and so does a shell with what it runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with first_signal_waits() as asked:
        signal.raise_signal(signal.SIGINT)
        assert not asked()


def test_outside_of_the_main_thread_nothing_is_taken_over():
    def work():
        with first_signal_waits() as asked:
            seen.append((signal.getsignal(signal.SIGINT), asked()))

    seen = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(end_now, False)]


def interrupted_while_garbage_is_collected():
    """Where Python drops what a handler raises."""

    def callback(phase, info):
        gc.callbacks.remove(callback)
        signal.raise_signal(signal.SIGTERM)

    gc.callbacks.append(callback)
    gc.collect()


def raises(number, frame):
    raise KeyboardInterrupt


def test_what_python_drops_comes_again_and_is_printed_nowhere(capsys):
    signal.signal(signal.SIGTERM, raises)
    hook = sys.unraisablehook

    def block():
        with comes_again(signal.SIGTERM):
            interrupted_while_garbage_is_collected()
            time.sleep(30)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert sys.unraisablehook is hook
    assert capsys.readouterr().err == ""


def test_where_the_block_is_over_nothing_comes_again():
    heard = []
    signal.signal(signal.SIGTERM, raises)
    with comes_again(signal.SIGTERM):
        interrupted_while_garbage_is_collected()
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    time.sleep(0.2)
    assert heard == []


def test_what_else_is_dropped_is_told_as_ever(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: told.append(what.exc_type))

    class Broken:
        def __del__(self):
            raise ZeroDivisionError

    with comes_again(signal.SIGTERM):
        broken = Broken()
        del broken
    assert told == [ZeroDivisionError]


def replaced_by_another_error(number):
    """What pybind11 does with a KeyboardInterrupt that comes while an error is on its way through C++."""
    try:
        signal.raise_signal(number)
    except KeyboardInterrupt:
        raise RuntimeError("ORIGINAL InvalidArgumentError REPLACED BY KeyboardInterrupt") from None


@pytest.mark.parametrize("number", BOTH)
def test_what_becomes_of_an_interruption_is_one(number):
    def block():
        with stays_an_interruption():
            replaced_by_another_error(number)

    signal.signal(number, raises)
    with pytest.raises(KeyboardInterrupt):
        block()
    assert signal.getsignal(number) is raises


@pytest.mark.parametrize("number", BOTH)
def test_an_error_after_a_signal_that_raised_nothing_is_that_error(number):
    def block():
        with stays_an_interruption(), first_signal_waits():
            signal.raise_signal(number)
            raise ZeroDivisionError

    signal.signal(number, raises)
    with pytest.raises(ZeroDivisionError):
        block()
