"""What the other tests rely on: their commands are forked, and end as processes of their own do."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Project, is_running
from warm import FORKS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="commands are not forked here")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "__init__.py").touch()
    return Project(tmp_path)


def write(project: Project, code: str) -> None:
    (project.root / "src" / "told.py").write_text(f"import os, sys, time\n{code}")


def test_a_command_is_forked_where_a_new_process_would_be_the_same(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project, "print(sys.argv[1:], 'torch' in sys.modules)\nsys.exit(3)")
    command = ("python", "-m", "src.told", "a b")
    assert project.run(*command, code=3) == "['a b'] True\n"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert project.run(*command, code=3) == "['a b'] False\n"


def test_a_fork_ends_with_the_command_that_it_stands_for(project: Project) -> None:
    write(project, "print(os.getpid(), flush=True)\ntime.sleep(60)")
    words, env = ["python", "-m", "src.told"], FORKS.environment()
    with subprocess.Popen(words, cwd=project.root, env=env, stdout=subprocess.PIPE) as command:
        assert command.stdout
        fork = int(command.stdout.readline())
        assert is_running(fork)
        assert fork != command.pid
        command.kill()
    for _ in range(100):
        if not is_running(fork):
            break
        time.sleep(0.1)
    assert not is_running(fork)


def test_a_command_ends_as_its_fork_does(project: Project) -> None:
    write(project, "os.kill(os.getpid(), 9)")
    project.run("python", "-m", "src.told", code=-9)
    write(project, "raise ValueError('oh')")
    printed = project.run("python", "-m", "src.told", code=1)
    assert printed.endswith("ValueError: oh\n")
