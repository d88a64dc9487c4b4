"""A zoo at a URL: fetched once, checked, and bounded in bytes and seconds."""

import socket
import threading
import time

import numpy as np
import pytest
from records import flip_a_byte, outputs

from cdc_keras import zoo
from cdc_keras.errors import UserError
from cdc_keras.zoo import files as zoo_files


def test_a_zoo_at_a_url_is_fetched_once(served):
    assert zoo.names() == ["shapes_extractor", "shapes_gated"]
    expected = outputs(zoo.load("shapes_gated"))
    assert sorted(served.asked) == [
        "/index.json",
        "/shapes_extractor/preset.json",
        "/shapes_gated/classifier.weights.h5",
        "/shapes_gated/preset.json",
    ]
    served.shutdown()
    served.server_close()
    np.testing.assert_array_equal(outputs(zoo.load("shapes_gated")), expected)
    assert zoo.names() == ["shapes_extractor", "shapes_gated"] and len(served.asked) == 4
    with pytest.raises(UserError, match="cannot fetch http.*shapes_extractor/extractor.weights.h5.*go online"):
        zoo.load("shapes_extractor")


def test_a_file_url_is_a_zoo_too(own, tmp_path, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_ZOO", own.as_uri())
    monkeypatch.setenv("CDC_KERAS_CACHE", str(tmp_path / "cache"))
    assert zoo.load("shapes_extractor").name == "shapes_extractor"


@pytest.mark.parametrize("file", ["shapes_extractor/preset.json", "shapes_extractor/extractor.weights.h5"])
@pytest.mark.parametrize("damage", ["flipped", "cut off", "gone"])
def test_a_download_other_than_listed_is_refused_and_not_kept(file, damage, served):
    path = served.folder / file
    before = path.read_bytes()
    if damage == "flipped":
        flip_a_byte(path, 500)
    else:
        path.write_bytes(before[:500]) if damage == "cut off" else path.unlink()
    with pytest.raises(UserError, match=f"{file}(: HTTP Error 404| is not the file that the zoo lists)"):
        zoo.load("shapes_extractor")
    kept = {p.name for p in served.cache.rglob("*") if p.is_file()}
    assert kept == ({"index.json"} if file.endswith("json") else {"index.json", "preset.json"})
    path.write_bytes(before)
    assert zoo.load("shapes_extractor")


def test_no_more_is_downloaded_than_the_record_states(served):
    path = served.folder / "shapes_extractor" / "extractor.weights.h5"
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"x" * 100)
    zoo.load("shapes_extractor")
    (cached,) = served.cache.rglob("extractor.weights.h5")
    assert cached.stat().st_size == size


def test_a_damaged_file_of_the_cache_is_fetched_again(served):
    zoo.load("shapes_extractor")
    (cached,) = served.cache.rglob("extractor.weights.h5")
    flip_a_byte(cached)
    served.asked.clear()
    zoo.load("shapes_extractor")
    assert served.asked == ["/shapes_extractor/extractor.weights.h5"]


@pytest.mark.parametrize("damage", [b"", b"{", b'{"shapes_extractor": "' + b"0" * 20, b"\xff\xfe\xff"])
def test_a_cut_cached_index_is_fetched_again(damage, served):
    zoo.load("shapes_extractor")
    (cached,) = served.cache.rglob("index.json")
    cached.write_bytes(damage)
    served.asked.clear()
    assert zoo.load("shapes_extractor") and zoo.names() == ["shapes_extractor", "shapes_gated"]
    assert served.asked == ["/index.json", "/index.json"]  # `names` always looks


def test_an_index_served_damaged_does_not_replace_the_cached(served):
    zoo.names()
    (served.folder / "index.json").write_text("{")
    with pytest.raises(UserError, match="index.json is no JSON"):
        zoo.names()
    assert zoo.load("shapes_extractor")


@pytest.fixture
def dripping(monkeypatch, tmp_path):
    """Servers that send a byte every 50 ms for a minute, in the headers or in the body."""
    listener = socket.create_server(("127.0.0.1", 0))
    stopped = threading.Event()

    def drip(connection, beginning, piece):
        with connection:
            try:
                connection.recv(65536)
                connection.sendall(beginning)
                for _ in range(1200):
                    if stopped.wait(0.05):
                        return
                    connection.sendall(piece)
            except OSError:
                pass

    def start(beginning, piece):
        def serve():
            while not stopped.is_set():
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                threading.Thread(target=drip, args=(connection, beginning, piece), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        monkeypatch.setenv("CDC_KERAS_ZOO", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setenv("CDC_KERAS_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(zoo_files, "TIMEOUT", 0.5)
        monkeypatch.setattr(zoo_files, "SLOWEST", 10**7)

    yield start
    stopped.set()
    listener.close()


@pytest.mark.parametrize(
    ("beginning", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
        (b"", b""),
    ],
)
def test_a_dripping_server_is_given_up(beginning, piece, dripping):
    dripping(beginning, piece)
    started = time.monotonic()
    with pytest.raises(UserError, match="cannot fetch http.*index.json: .*go online"):
        zoo.names()
    assert time.monotonic() - started < 5


def test_a_cache_that_cannot_be_written_is_named(served, monkeypatch):
    served.cache.write_text("a file where a folder is to be")
    with pytest.raises(UserError, match="cannot write .*cache.*; set CDC_KERAS_CACHE"):
        zoo.names()
