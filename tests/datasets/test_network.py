"""A network that is not there is found out, and one that is there is not denied."""

import http.server
import socket
import threading

import pytest

from finetune.datasets.network import answers


@pytest.fixture
def server():
    """A server on this machine that answers every HEAD with the status in its path."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(int(self.path[1:]))
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.parametrize(("status", "answered"), [(200, True), (403, True), (404, True), (502, False)])
def test_a_refusal_is_an_answer_and_a_failing_gateway_is_none(server, status, answered):
    assert answers(f"{server}/{status}") is answered


def test_a_closed_door_is_no_answer():
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
    assert not answers(f"http://127.0.0.1:{port}/")


def test_silence_is_no_answer_after_the_time_is_over():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert not answers(f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds=0.2)


def test_a_name_that_cannot_be_looked_up_is_no_answer(monkeypatch):
    def fail(*arguments, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert not answers("http://data.invalid/")


def test_a_look_up_that_hangs_is_not_waited_for(monkeypatch):
    over = threading.Event()

    def hang(*arguments, **options):
        over.wait(60)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    assert not answers("http://data.invalid/", seconds=0.1)
    over.set()
