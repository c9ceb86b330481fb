"""Check that the work tree, the DVC cache and a remote hold exactly what dvc.lock says.

    python -m src.tools.verify
    python -m src.tools.verify models/shipped train data/splits/test.parquet
    python -m src.tools.verify --remote storage --download

Everything is read and hashed anew, of all pipelines of the repository.
"""

import sys

from src.core import stage
from src.core.errors import InputError
from src.project.graph import project
from src.tools.verify.outs import Report, check
from src.tools.verify.remote import check_remote

SHOWN = 20


def main(*targets: str, remote: str | bool = False, download: bool = False) -> None:
    """Check that files, DVC's cache or a remote hold what dvc.lock says; exit with 1 if not.

    The targets are outs, files or folders inside of or around outs, or stages; without any,
    everything is checked. --remote checks a remote, by its name, or else the default one;
    --download reads the contents there, wherever they are.
    """
    if download and remote is False:
        raise InputError("--download goes with --remote: add --remote.")
    with project() as repo:
        if remote is False:
            report = check(repo, targets)
            summary = (
                f"Read {report.files} files of the work tree and {report.objects} objects of "
                f"the cache, {report.size:,} bytes"
            )
            if report.absent:
                summary += f"; {report.absent} objects are not in the cache"
        else:
            report, contents = check_remote(
                repo, targets, remote if isinstance(remote, str) else None, download
            )
            summary = (
                f"Found {report.objects} objects on the remote, {report.size:,} bytes"
                f"{', and read them' if contents else ' (--download reads them)'}"
            )
    _print(report, summary)


def _print(report: Report, summary: str) -> None:
    if not report.findings:
        print(f"{summary}: all is what dvc.lock says.")
        return
    for finding in report.findings[:SHOWN]:
        print(f"{finding.path} {finding.fault}")
    if len(report.findings) > SHOWN:
        print(f"... and {len(report.findings) - SHOWN} more")
    are = "is" if len(report.findings) == 1 else "are"
    print(f"{summary}: {len(report.findings)} {are} not what dvc.lock says. To put them right:")
    listed = report.findings[:SHOWN]
    commands = [command for finding in listed for command in finding.first]
    for command in dict.fromkeys([*commands, *(f.cure for f in listed if f.cure)]):
        print(f"  {command}")
    sys.exit(1)


if __name__ == "__main__":
    stage.run(main, section=False)
