"""Sources beyond the local disk, against real servers on loopback."""

import gzip
import hashlib
import http.server
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs
from conftest import LOAD, serving

from src.core.errors import InputError
from src.core.secrets import secret_in
from src.tables import download, sources
from src.tables.places import File
from src.text import load

CONTENT = "text,label\n" + "".join(f"text {k},{'xy'[k % 2]}\n" for k in range(200_000))
PAGE = """<html><body>Google Drive can't scan this file for viruses.
<form id="download-form" action="/download" method="get"><input type="submit" value="Anyway"/>
<input type="hidden" name="id" value="1a-B_c"><input type="hidden" name="confirm" value="t">
<input type="hidden" name="uuid" value="42"></form></body></html>"""


@pytest.fixture(autouse=True)
def _in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download, "PAUSE", 0.01)


def found(*places: str, sha256: str = "") -> list[File]:
    folder = Path("copies")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return sources.find(places, folder, sha256, 10**9)


def content(file: File) -> str:
    with file.open() as stream:
        return stream.read().decode()


def refused(*places: str, sha256: str = "") -> str:
    with pytest.raises(InputError) as raised:
        found(*places, sha256=sha256)
    return str(raised.value)


Answer = Callable[[Any, int], None]  # a request's handler, and the request's number


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Start a server whose answers a function gives, told the number of the request."""
    running = []

    def start(answer: Answer) -> str:
        requests: list[int] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(1)
                answer(self, len(requests))

            def log_message(self, *_: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def send(handler: Any, data: bytes, code: int = 200, **headers: str) -> None:
    handler.send_response(code)
    for name, value in ({"Content_Length": str(len(data))} | headers).items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


def test_a_download_goes_on_where_it_broke(serve: Callable[[Answer], str]) -> None:
    data = CONTENT.encode()
    ranges = []

    def answer(handler: Any, _: int) -> None:
        ranges.append(handler.headers["Range"])
        start = int((handler.headers["Range"] or "bytes=0-")[6:-1])
        code = 206 if start else 200
        if start:
            assert handler.headers["If-Range"] == '"v1"'
        part = data[start : start + len(data) // 3 + 1]
        place = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        send(handler, part, code, Content_Length=str(len(data) - start), ETag='"v1"', **place)

    url = serve(answer)
    (file,) = found(f"{url}/x.csv")
    assert content(file) == CONTENT
    assert ranges[0] is None
    assert 3 <= len(ranges) <= download.ATTEMPTS, "each brings more"
    assert [int(r[6:-1]) for r in ranges[1:]] == sorted(int(r[6:-1]) for r in ranges[1:])


@pytest.mark.parametrize("code", [200, 206])
def test_a_file_that_changes_meanwhile_is_brought_from_its_start(
    code: int, serve: Callable[[Answer], str]
) -> None:
    """Both from a server that heeds If-Range and from one that does not."""
    new = CONTENT.upper().encode()
    asked = []

    def answer(handler: Any, number: int) -> None:
        asked.append(handler.headers["Range"])
        start = int((handler.headers["Range"] or "bytes=0-")[6:-1])
        if number == 1:
            part = CONTENT.encode()[:1_000_000]
            send(handler, part, Content_Length=str(len(CONTENT)), ETag='"v1"')
        elif number == 2 and code == 206:
            place = f"bytes {start}-{len(new) - 1}/{len(new)}"
            send(handler, new[start:], 206, Content_Range=place, ETag='"v2"')
        else:
            send(handler, new, ETag='"v2"')

    (file,) = found(f"{serve(answer)}/x.csv")
    assert content(file).encode() == new
    assert asked[0] is None
    assert asked[1] == "bytes=1000000-", "it went on where it broke"
    assert len(asked) == (2 if code == 200 else 3)


def test_a_server_that_is_busy_is_asked_again_and_one_that_breaks_is_given_up(
    serve: Callable[[Answer], str],
) -> None:
    def busy(handler: Any, number: int) -> None:
        send(handler, b"later" if number < 3 else CONTENT.encode(), 503 if number < 3 else 200)

    assert content(found(f"{serve(busy)}/x.csv")[0]) == CONTENT
    seen = []

    def broken(handler: Any, number: int) -> None:
        seen.append(number)
        send(handler, b"text", Content_Length="100")

    url = serve(broken)
    assert refused(f"{url}/x.csv").startswith(f"{url}/x.csv can't be read: ")
    assert len(seen) == download.ATTEMPTS

    def absent(handler: Any, _: int) -> None:
        seen.append(404)
        send(handler, b"no", 404)

    seen.clear()
    assert "404 Client Error" in refused(f"{serve(absent)}/x.csv")
    assert len(seen) == 1, "what is not there will not come"
    assert "onnection refused" in refused("http://127.0.0.1:1/x.csv")


def test_a_web_page_is_no_download(serve: Callable[[Answer], str]) -> None:
    def answer(handler: Any, _: int) -> None:
        send(handler, b"<!DOCTYPE html><html>Sign in</html>", Content_Type="text/html")

    url = serve(answer)
    assert refused(f"{url}/x.csv").startswith(f"{url}/x.csv is a web page")
    plain = serve(lambda handler, _: send(handler, b"<!DOCTYPE html><html>Sign in</html>"))
    params = LOAD | {"source": [f"{plain}/x.csv"]}
    with pytest.raises(InputError, match=r"^/x.csv is a web page, not a csv file"):
        load.main(Path("watched"), Path("raw"), Path("rejected.csv"), **params)


def test_a_drive_link_is_followed_past_the_page_about_large_files(
    serve: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def answer(handler: Any, _: int) -> None:
        asked.append(handler.path)
        if "confirm=t" not in handler.path:
            send(handler, PAGE.encode(), Content_Type="text/html; charset=utf-8")
        else:
            name = 'attachment; filename="reviews.csv"'
            send(handler, CONTENT.encode(), Content_Disposition=name)

    url = serve(answer)
    monkeypatch.setattr(download, "DRIVE_DOWNLOAD", url + "/download?id={}&export=download")
    monkeypatch.setattr(download, "DRIVE_HOST", "127.0.0.1")
    (file,) = found("https://drive.google.com/file/d/1a-B_c/view?usp=sharing")
    assert asked == ["/download?id=1a-B_c&export=download", "/download?id=1a-B_c&confirm=t&uuid=42"]
    assert file.name == "reviews.csv"
    assert content(file) == CONTENT


def test_a_page_of_another_host_sends_nobody_elsewhere(serve: Callable[[Answer], str]) -> None:
    asked = []

    def answer(handler: Any, _: int) -> None:
        asked.append(handler.path)
        send(handler, PAGE.encode(), Content_Type="text/html; charset=utf-8")

    url = serve(answer)
    assert refused(f"{url}/x.csv").startswith(f"{url}/x.csv is a web page, not a file")
    assert asked == ["/x.csv"]


def test_a_file_larger_than_may_be_is_not_brought_whole(serve: Callable[[Answer], str]) -> None:
    data = CONTENT.encode()
    url = serve(lambda handler, _: send(handler, data))
    with pytest.raises(InputError, match=f"^{url}/x.csv holds more than 100000 bytes"):
        sources.find([f"{url}/x.csv"], Path(), "", 100_000)
    assert Path("0").stat().st_size < len(data) / 2


def test_a_server_that_sends_hardly_anything_is_given_up(
    serve: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    monkeypatch.setattr(download, "ATTEMPTS", 2)

    def answer(handler: Any, _: int) -> None:
        send(handler, b"", Content_Length="100")
        for _ in range(100):
            handler.wfile.write(b"x")
            time.sleep(0.05)

    url = f"{serve(answer)}/x.csv"
    assert refused(url).startswith(f"{url} can't be read: it sends less than 65536 bytes in 0.3 s")


@pytest.mark.parametrize(("code", "length"), [(206, "4"), (200, "many")])
def test_an_answer_that_makes_no_sense_is_one_sentence(
    code: int, length: str, serve: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that nobody asked for, or a length that is none."""
    monkeypatch.setattr(download, "ATTEMPTS", 2)

    def answer(handler: Any, _: int) -> None:
        send(handler, b"text", code, Content_Length=length)
        handler.close_connection = True

    url = f"{serve(answer)}/x.csv"
    if code == 206:
        assert refused(url).startswith(f"{url} can't be read: ")
    else:
        assert content(found(url)[0]) == "text"


SECRETS = [
    "http://ann:hush@127.0.0.1/x.csv",
    "https://hush@127.0.0.1/x.csv",
    "zip://x.csv::https://ann:hush@127.0.0.1/x.zip",
    "ftp://ann:hush@127.0.0.1/x.csv",
    "http://ann:p@hush@127.0.0.1/x.csv",
    "http://ann:hush#1@127.0.0.1/x.csv",
    *(
        f"https://127.0.0.1/x.csv{separator}{name}=hush"
        for separator, name in [
            *(("?", "token"), ("?a=1&", "X-Amz-Signature"), ("?", "sig"), ("?", "apiKey")),
            *(("?", "accessToken"), ("?", "AWSAccessKeyId"), ("#", "token"), (";", "password")),
            *(("?", "code"), ("?", "sasKey"), ("?", "access_token%5B%5D"), ("?", "sessionid")),
            *(("?", "auth"), ("?", "pwd"), ("?", "client_secret"), ("?", "X-Goog-Credential")),
        ]
    ),
]


@pytest.mark.parametrize("place", SECRETS)
def test_a_secret_in_a_source_is_refused_and_not_said(place: str) -> None:
    told = refused(place)
    assert told.startswith("load.source has a secret in ")
    assert "write $NAME in its place" in told
    assert "hush" not in told


@pytest.mark.parametrize(
    "place",
    [
        "https://example.org/x.csv?download=true&id=7",
        "https://example.org/monkey/x.csv?tokenizer=bert&keyword=a",
        "ssh://ann@example.org/x.csv",
        "s3://bucket/token=7/x.csv",
        "https://example.org/x.csv?token=$TOKEN",
        "https://ann:$PASSWORD@example.org/x.csv",
    ],
)
def test_what_is_no_secret_is_none(place: str) -> None:
    assert secret_in(place) == ""


def test_a_secret_of_the_environment_reaches_the_server_alone(
    serve: Callable[[Answer], str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    caplog.set_level("INFO")
    asked = []

    def answer(handler: Any, number: int) -> None:
        asked.append(handler.path)
        send(handler, CONTENT[:300].encode(), {1: 503, 3: 404}.get(number, 200))

    url = f"{serve(answer)}/$TICKETS_TOKEN/x.csv?token=$TICKETS_TOKEN"
    assert "the variable TICKETS_TOKEN" in refused(url)
    monkeypatch.setenv("TICKETS_TOKEN", "hush")
    load.main(Path("watched"), Path("raw"), Path("rejected.csv"), **LOAD | {"source": [url]})
    told = refused(url)
    assert "404 Client Error" in told
    assert asked == ["/hush/x.csv?token=hush"] * 3
    (file,) = found(f"simplecache::{url}")
    assert "hush" not in file.name
    assert content(file) == CONTENT[:300]
    assert asked[3:] == ["/hush/x.csv?token=hush"] * len(asked[3:])
    assert "hush" not in refused(f"simplecache::{url}", f"simplecache::{url}")
    written = [path.read_bytes() for path in Path("raw").iterdir()]
    assert not any(b"hush" in content for content in written)
    assert "trying again" in caplog.text
    assert "hush" not in told + caplog.text


def test_a_pipe_among_the_files_is_refused() -> None:
    Path("texts").mkdir()
    Path("texts/a.csv").write_text(CONTENT)
    os.mkfifo("texts/b.csv")
    assert "texts/b.csv is not a regular file" in refused("texts")


def test_a_drive_share_link_becomes_its_download() -> None:
    expected = "https://drive.usercontent.google.com/download?id=1a-B_c&export=download"
    for link in ("file/d/1a-B_c/view?usp=sharing", "open?id=1a-B_c", "uc?export=x&id=1a-B_c"):
        assert download.download_link(f"https://drive.google.com/{link}") == expected
    assert download.download_link("https://example.org/x.csv") == "https://example.org/x.csv"


@pytest.mark.parametrize(
    "place",
    [
        *("git://::x", "data:,x", "https://[::1", "s3://Bad_Bucket/x.csv", "zip://", "::", "x::y"),
        *("http://", "http:///x", "http://127.0.0.1:99999/x", "hf://x", "a" * 5000, "a\0b"),
        f"http://{'a' * 300}/x",
    ],
)
def test_a_source_that_makes_no_sense_is_one_sentence(place: str) -> None:
    assert place[:40] in refused(place)


def test_a_source_that_changed_is_refused() -> None:
    Path("x.csv.gz").write_bytes(gzip.compress(CONTENT.encode()))
    sha256 = hashlib.sha256(Path("x.csv.gz").read_bytes()).hexdigest()
    assert content(found("x.csv.gz", sha256=sha256)[0]) == CONTENT
    told = refused("x.csv.gz", sha256="0" * 64)
    assert told.startswith(f"{Path('x.csv.gz').resolve()} has changed: its sha256 is {sha256}, not")
    assert "load.sha256" in told
    Path("y.csv").write_text(CONTENT)
    assert "load.sha256 is set, but load.source has 2 files" in refused("*.*", sha256=sha256)


def test_a_member_of_an_archive() -> None:
    with zipfile.ZipFile("x.zip", "w") as archive:
        archive.writestr("inner/x.csv", CONTENT)
    assert content(found("zip://inner/x.csv::x.zip")[0]) == CONTENT


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """An S3 server that checks its secret, and the folder whose subfolders are its buckets."""
    folder = tmp_path_factory.mktemp("s3")
    with serving("rclone", "serve", "s3", "--auth-key", "key,secret", folder) as port:
        yield f"http://127.0.0.1:{port}", folder


@pytest.mark.filterwarnings("default")  # of libraries between here and the server
def test_over_s3(s3: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    url, folder = s3
    (folder / "bucket/texts").mkdir(parents=True)
    for name in ("a", "b"):
        (folder / f"bucket/texts/{name}.csv").write_text(CONTENT)
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    files = found("s3://bucket/texts/*.csv")
    assert [file.name for file in files] == ["bucket/texts/a.csv", "bucket/texts/b.csv"]
    assert content(files[1]) == CONTENT
    assert "at s3://bucket/texts/c.csv, seen from" in refused("s3://bucket/texts/c.csv")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    s3fs.S3FileSystem.clear_instance_cache()
    assert refused("s3://bucket/texts/a.csv").startswith("s3://bucket/texts/a.csv can't be read")


def test_a_part_is_never_taken_for_the_whole(serve: Callable[[Answer], str]) -> None:
    """Even where no length is told; and load leaves nothing of it."""

    def answer(handler: Any, _: int) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        rows = CONTENT.encode()[:200_000]
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(rows), rows))  # and no last chunk

    url = f"{serve(answer)}/x.csv"
    with pytest.raises(InputError, match=f"^{url} can't be read: "):
        load.main(Path("watched"), Path("raw"), Path("rejected.csv"), source=[url], **LOAD)
    assert list(Path().iterdir()) == []


def test_a_compressed_file_comes_as_it_is(serve: Callable[[Answer], str]) -> None:
    """Servers announce .gz as an encoding, which must not be taken off before it is measured."""
    data = gzip.compress(CONTENT.encode())
    url = serve(lambda handler, _: send(handler, data, Content_Encoding="gzip"))
    assert content(found(f"{url}/x.csv.gz")[0]) == CONTENT
