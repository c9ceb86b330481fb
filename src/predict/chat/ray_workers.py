"""Answer on a Ray cluster: an engine on each node that has the processors for one."""

import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Any

from src.core.errors import InputError
from src.predict.chat.client import RETRIES, Chat, Said, Say, Way, opened
from src.predict.chat.models import EngineName, chat_models
from src.predict.ray_workers import cluster

AGAIN = 3  # times that a lost process is started anew, and a request sent again
FOLDER = "pedigree-chat-"  # what a node calls the folder of a model begins so
CLOSE = 30  # seconds that engines have to end


class _Answerer:
    """An engine on a node, and the model that it answers by."""

    def __init__(self, folders: list[Any], threads: int, way: Way) -> None:
        """Take references to the files of a base and maybe an adapter."""
        self._given = folders, threads, way
        self._stack = ExitStack()
        self._chat: Chat | None = None
        self._lock = threading.Lock()

    def start(self) -> Chat:
        """Write the files here, and start an engine for the last folder, unless there is one."""
        with self._lock:
            self._chat = self._chat or self._started()
            return self._chat

    def _started(self) -> Chat:
        import ray

        folders, threads, way = self._given
        root = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix=FOLDER)))
        os.chdir(root)  # where its log goes
        places = []
        for name, files in ray.get(folders):
            places.append(root / name)
            for file, content in files.items():
                (root / name / file).parent.mkdir(parents=True, exist_ok=True)
                (root / name / file).write_bytes(content)
        at = self._stack.enter_context(opened(str(places[-1]), str(places[0]), threads=threads))
        return Chat(at[0], at[2], at[1], way, RETRIES)

    def ready(self) -> None:
        """Start the engine."""
        self.start()

    def say(self, messages: list[Any], tools: list[Any]) -> Said:
        """Answer messages."""
        return self.start().say(messages, tools)

    def close(self) -> None:
        """End the engine, and remove the files."""
        self._stack.close()


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
        at_once: how many requests an engine gets together at most.

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
        answerers = [kind.remote(folders, threads, way) for _ in range(count)]
        turns = cycle(answerers)

        def say(messages: list[Any], tools: list[Any]) -> Said:
            said: Said = _fetched(next(turns).say.remote(messages, tools))
            return said

        try:
            for one in answerers:
                _fetched(one.ready.remote())
            yield say, found[-1].name
        finally:
            with suppress(ray.exceptions.RayError):
                ray.get([one.close.remote() for one in answerers], timeout=CLOSE)


def _fetched(result: Any) -> Any:
    """Wait for what an engine's process does."""
    import ray

    try:
        return ray.get(result)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):  # a refusal stays one
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"Ray could not answer: {reason}; repair the cluster, and continue with --resume."
        ) from None
