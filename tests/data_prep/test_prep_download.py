"""Downloads against a real server on this machine: hash, resumption, half downloads, no network."""

import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from test_packed import failure

from relaunch.data_prep import cifar10 as recipe
from relaunch.data_prep.download import download
from relaunch.data_prep.recipes import prepare
from rigs.prep_sources import cifar10


@pytest.fixture
def server():
    """Serves `server.content`; cuts an answer after `server.cut` bytes; notes the ranges asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            server.ranges.append(asked)
            first = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.resumes else 0
            if first and first >= len(server.content):
                return self.send_error(416)
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(server.content) - first))
            self.end_headers()
            self.wfile.write(server.content[first : server.cut])

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.cut, server.ranges, server.resumes = os.urandom(3 << 20), None, [], True
    server.url = f"http://127.0.0.1:{server.server_port}/file.bin"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.mark.parametrize("resumes", [True, False])
def test_half_a_download_is_continued_or_restarted(tmp_path, server, resumes):
    server.cut, server.resumes = 1 << 20, resumes
    target, part = tmp_path / "d" / "file.bin", tmp_path / "d" / "file.bin.part"
    assert "connection broke" in failure(65, download, [server.url], md5(server.content), target, False)
    assert part.stat().st_size == 1 << 20 and not target.exists()
    server.cut = None
    download([server.url], md5(server.content), target, False)
    assert target.read_bytes() == server.content and not part.exists()
    assert server.ranges == [None, f"bytes={1 << 20}-"]
    download([server.url], md5(server.content), target, False)
    assert len(server.ranges) == 2  # it is there


def test_a_complete_part_is_only_checked(tmp_path, server):
    (tmp_path / "file.bin.part").write_bytes(server.content)
    download([server.url], md5(server.content), tmp_path / "file.bin", False)
    assert (tmp_path / "file.bin").read_bytes() == server.content


def test_a_wrong_hash_is_refused_and_thrown_away(tmp_path, server):
    line = failure(65, download, [server.url], md5(b"other"), tmp_path / "file.bin", False)
    assert md5(server.content) in line and os.listdir(tmp_path) == []


def test_the_next_mirror_is_tried(tmp_path, server):
    download(["http://127.0.0.1:9/file.bin", server.url], md5(server.content), tmp_path / "file.bin", False)
    assert (tmp_path / "file.bin").exists()


def test_an_official_set_is_downloaded_and_packed(tmp_path, server, monkeypatch):
    cifar10(tmp_path / "c.tar.gz")
    server.content = (tmp_path / "c.tar.gz").read_bytes()
    monkeypatch.setattr(recipe, "URLS", {"cifar-10-python.tar.gz": [server.url]})
    monkeypatch.setattr(recipe, "PUBLISHED", {"cifar-10-python.tar.gz": md5(server.content)})
    data = prepare("cifar10", root=tmp_path / "data", progress=False)
    assert data.splits == {"train": 20, "test": 4} and data.meta["source"]["as_published"] is True


def test_no_network_is_one_line_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "URLS", {"cifar-10-python.tar.gz": ["http://127.0.0.1:9/x"]})
    line = failure(65, prepare, "cifar10", root=tmp_path, progress=False)
    assert "cannot download" in line and "--source PATH" in line and os.listdir(tmp_path) == []
