"""Answer on a Ray cluster: an engine on each node that has the processors for one."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

from src.core.errors import InputError
from src.predict.chat.client import Chat, Said, Say, Way, opened
from src.predict.chat.models import EngineName, chat_models
from src.predict.ray_workers import RETRIES, cluster

AGAIN = 3  # times that a lost engine is started anew, and a request sent again


class _Answerer:
    """An engine on a node, and the model that it answers by."""

    def __init__(self, folders: list[Any], threads: int, way: Way) -> None:
        """Write a base and maybe an adapter here, and start an engine for the last of them."""
        import ray

        self._stack = ExitStack()
        root = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        os.chdir(root)  # where its log goes
        places = []
        for name, files in ray.get(folders):
            places.append(root / name)
            for file, content in files.items():
                (root / name / file).parent.mkdir(parents=True, exist_ok=True)
                (root / name / file).write_bytes(content)
        at = self._stack.enter_context(opened(str(places[-1]), str(places[0]), threads=threads))
        self._chat = Chat(at[0], at[2], at[1], way, RETRIES)

    def say(self, messages: list[Any], tools: list[Any]) -> Said:
        """Answer messages."""
        return self._chat.say(messages, tools)


def _content(folder: Path) -> Mapping[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@contextmanager
def on_ray(
    address: str,
    place: str,
    base: str,
    engine: EngineName,
    threads: int,
    way: Way,
    at_once: int,
) -> Iterator[tuple[Say, str]]:
    """Start an engine on each node of a Ray cluster, as long as the block runs.

    Args:
        address: of the cluster, as ``src.predict --ray`` takes it.
        place: the folder of a model or an adapter, which is sent to the nodes.
        base: the folder of the model that an adapter was trained on, likewise.
        engine: transformers; vLLM has a way of its own to use several nodes.
        threads: of the processor, for each engine.
        way: how answers are drawn.
        at_once: how many requests each engine gets together.

    Yields:
        what answers messages, each time by another engine, and the name of the model.

    Raises:
        InputError: there is no such folder, no Ray or no cluster, or no node has processors enough.
    """
    if "://" in place:
        raise InputError(f"--ray is for a folder, and {place} is a server already: leave it out.")
    if engine != "transformers":
        raise InputError(
            "--ray is for --engine transformers: `python -m src.serve.chat --ray` has vLLM use a "
            "cluster, and its URL can be asked then."
        )
    found = chat_models([Path(place)], Path(base))
    with cluster(address) as ray:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        count = sum(node.get("CPU", 0) >= threads for node in nodes)
        if not count:
            raise InputError(
                f"No node of the Ray cluster has {threads} processors, of {len(nodes)} nodes: "
                "lower --threads, or add a node."
            )
        folders = [ray.put((one.name, _content(one.folder))) for one in found]
        kind = ray.remote(_Answerer).options(
            num_cpus=threads,
            max_concurrency=at_once,
            max_restarts=AGAIN,
            max_task_retries=AGAIN,
            scheduling_strategy="SPREAD",
        )
        turns = cycle([kind.remote(folders, threads, way) for _ in range(count)])

        def say(messages: list[Any], tools: list[Any]) -> Said:
            return _fetched(next(turns).say.remote(messages, tools))

        yield say, found[-1].name


def _fetched(result: Any) -> Said:
    """Wait for an answer."""
    import ray

    try:
        said: Said = ray.get(result)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):  # a refusal stays one
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"Ray could not answer: {reason}; repair the cluster, and continue with --resume."
        ) from None
    return said
