"""`download` over hosts that break off, that know no ranges, and that have sent it all before."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from lookbehind.train.data.named import download

CONTENT = np.random.default_rng(0).bytes(300_000)


class Host(BaseHTTPRequestHandler):
    """Sends CONTENT, at most `most` bytes at a time; may answer a range."""

    most, ranges = len(CONTENT), True
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self):
        wanted = self.headers.get("Range", "bytes=0-")
        self.asked.append(wanted)
        start = int(wanted[6:-1]) if self.ranges else 0
        rest = CONTENT[start:]
        self.send_response(416 if not rest else 206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: self.most])

    def log_message(self, *_):
        pass


@pytest.fixture
def host(monkeypatch):
    """A function: the address of a host of the settings given."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(Host, "asked", [])
    with HTTPServer(("127.0.0.1", 0), Host) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()

        def address(**settings):
            for name, value in settings.items():
                monkeypatch.setattr(Host, name, value)
            return f"http://127.0.0.1:{server.server_port}/file"

        yield address
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("ranges", [True, False])
def test_it_goes_on_where_it_broke_off_or_starts_anew(host, tmp_path, ranges, capsys):
    path = tmp_path / "file.bin"
    with pytest.raises(ConnectionError, match="it broke off after 200,000 of 300,000 bytes"):
        download(host(most=200_000, ranges=ranges), path)
    assert not path.exists()
    download(host(most=len(CONTENT)), path)
    assert path.read_bytes() == CONTENT
    assert [*tmp_path.iterdir()] == [path]
    assert Host.asked == ["bytes=0-", "bytes=200000-"]
    assert "file.bin: " in capsys.readouterr().err


def test_a_file_that_lacks_but_its_name_is_not_sent_again(host, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    download(host(), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_host_that_refuses_keeps_what_has_come(tmp_path, host):
    (tmp_path / "file.bin.part").write_bytes(b"some")
    with pytest.raises(OSError, match="refused"):
        download("http://127.0.0.1:9/file", tmp_path / "file.bin")
    assert (tmp_path / "file.bin.part").read_bytes() == b"some"
