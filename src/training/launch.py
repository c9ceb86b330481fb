"""Several processes that share a training: torchrun starts them, and the first one writes."""

import errno
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from src.core import stage
from src.core.errors import InputError
from src.core.stage import tells_of_a_full_disk

LAUNCHED = "PEDIGREE_LAUNCHED"  # tells the processes that were launched where checkpoints are


def shared_folder() -> Path | None:
    """Return the folder of the checkpoints if ``launch`` started this process, else None."""
    return Path(os.environ[LAUNCHED]) if LAUNCHED in os.environ else None


def is_needed(processes: int) -> bool:
    """Tell whether this process has to launch those that train."""
    return not shared_folder() and (processes > 1 or "PET_NNODES" in os.environ)


def is_first() -> bool:
    """Tell whether this process is the one of its machine that writes."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0


def world(processes: int) -> int:
    """Count the processes that share a batch, those of other machines too.

    Raises:
        InputError: something else than ``launch`` started this process as one of several.
    """
    if "WORLD_SIZE" in os.environ and not shared_folder():
        raise InputError(
            "WORLD_SIZE is set, as torchrun sets it, but a training starts its processes itself: "
            "unset it, and set train.processes, or PET_NNODES for several machines."
        )
    return int(os.environ.get("WORLD_SIZE", processes))


def launch(module: str, processes: int, arguments: Sequence[str], checkpoints: Path) -> None:
    """Run a stage in ``processes`` processes of this machine, which share each batch.

    torchrun's own variables, such as PET_NNODES and PET_RDZV_ENDPOINT, add other machines.

    Args:
        module: that of the stage, such as ``src.text.train``.
        processes: their number on this machine.
        arguments: the words of the stage's command line.
        checkpoints: the folder that all of them keep checkpoints in.

    Raises:
        InputError: one of them found a mistake or ended, or the machines can't meet.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError

    os.environ[LAUNCHED] = str(checkpoints.absolute())
    # By number, as the name of a machine may stand for an address that nobody listens on.
    alone = [] if "PET_NNODES" in os.environ else ["--standalone", "--local-addr=127.0.0.1"]
    words = [*alone, f"--nproc-per-node={processes}", "--module", module, *arguments]
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # the processes speak
    os.environ.setdefault("DVC_STAGE", module.rpartition(".")[2])  # they end with this process
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # spares a warning; the param is what counts
    try:
        run.run(run.parse_args(words))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        # A process leaves a dict if it had an error to tell, and a str if it was killed.
        told = failure.message["message"] if isinstance(failure.message, dict) else ""
        if told.startswith(prefix := f"{InputError.__name__}: "):
            raise InputError(told.removeprefix(prefix)) from error
        if tells_of_a_full_disk(told):
            raise OSError(errno.ENOSPC, told) from error
        raise InputError(
            f"Process {rank} of the {processes} that train has ended with exit code "
            f"{failure.exitcode}: see its message above, or, if there is none, look for what "
            "killed it, such as a lack of memory."
        ) from error
    except SignalException as error:
        raise KeyboardInterrupt from error
    except (RendezvousError, ValueError) as error:
        raise InputError(
            f"The machines can't meet ({' '.join(str(error).split())}): correct PET_NNODES, "
            "PET_RDZV_BACKEND and PET_RDZV_ENDPOINT."
        ) from error


def run(main: Callable[..., None]) -> None:
    """Run a stage that may launch processes, or be one of those that were launched."""
    if shared_folder():
        from torch.distributed.elastic.multiprocessing.errors import record as tell_parent

        # A mistake that each process finds is said once, by the parent.
        logging.getLogger("src.core.stage").setLevel(logging.CRITICAL)
        stage.run(tell_parent(main), exclusive=False)
    else:
        stage.run(main)
