"""Score batches on a Ray cluster."""

import hashlib
import json
import logging
import os
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from src.core.errors import InputError
from src.predict.engines import Engine
from src.predict.foreign import verified
from src.predict.manifest import MANIFEST, manifest_of
from src.predict.scoring import Inputs, Scores, Submit, Work
from src.predict.work import load

CONNECT = 10  # seconds until a cluster must have answered
RETRIES = 10  # of a batch whose node or process is lost
AHEAD = 4  # batches a worker that wait for it or for their turn

_loaded: dict[str, Work] = {}  # by a worker, for all of its batches


def _there(
    name: str,
    files: list[Any],
    engine: Engine,
    threads: int,
    batch_tokens: int,
    inputs: Inputs,
) -> Scores:
    """Score a batch on a worker; ``files`` holds a reference to those of the model."""
    import ray

    if name not in _loaded:
        with tempfile.TemporaryDirectory() as folder:
            for file, content in ray.get(files[0]).items():
                Path(folder, file).write_bytes(content)
            _loaded[name] = load(Path(folder), threads, engine, batch_tokens)
    return _loaded[name].score(inputs, ray.get_runtime_context().get_node_id())


@contextmanager
def cluster(address: str) -> Iterator[Any]:
    """Connect to a Ray cluster, or start a local one for as long as the block lasts.

    Raises:
        InputError: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError:
        raise InputError(
            "--ray needs the package ray, which is not installed: `pip install ray`, or leave it "
            "out."
        ) from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a local cluster would tell its makers
    with redirect_stdout(sys.stderr):  # Ray prints what happens to nodes
        try:
            if at := re.fullmatch(r"(?:ray://)?([^/:]+):(\d+)", address):
                # Ray itself would try for minutes.
                socket.create_connection((at[1], int(at[2])), timeout=CONNECT).close()
            ray.init(
                address=address,
                runtime_env={"py_modules": [str(Path(__file__).parents[1])]},
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise InputError(
                f"--ray {address} can't be reached: {reason}; start a cluster with `ray start "
                "--head`, or use --ray local."
            ) from None
        try:
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def on_ray(
    address: str, model: Path, engine: Engine, threads: int, batch_tokens: int
) -> Iterator[tuple[Submit, int]]:
    """Score on a Ray cluster, a task a batch; a task whose node is lost runs on another node.

    Yields what starts to score, and how many batches may be under way at once.

    Plain tasks and not Ray Data, which cuts its blocks by their size and reads files itself: the
    batches would depend on the cluster, and with them the last digits of the scores.

    Raises:
        InputError: there is no Ray or no cluster, or no node can run a task.
    """
    with cluster(address) as ray:
        needs = {"CPU": threads} | ({"GPU": 1} if engine == "cuda" else {})
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        at_once = sum(
            min(int(node.get(kind, 0) // count) for kind, count in needs.items()) for node in nodes
        )
        if not at_once:
            raise InputError(
                f"No node of the Ray cluster has {needs}, of {len(nodes)} nodes: lower --threads, "
                "or add a node."
            )
        manifest = manifest_of(model)  # whose names are plain, so nodes write nowhere else
        content = {name: verified(model / name, sha) for name, sha in manifest["files"].items()}
        described = json.dumps(manifest).encode()
        files = ray.put(content | {MANIFEST: described})
        key = hashlib.sha256(described).hexdigest()
        task = ray.remote(_there).options(
            num_cpus=threads, num_gpus=needs.get("GPU", 0), max_retries=RETRIES
        )

        def submit(inputs: Inputs, _: int) -> Callable[[], Scores]:
            # In a list, a reference is passed on as one, and each worker fetches the model once.
            result = task.remote(key, [files], engine, threads, batch_tokens, inputs)
            return lambda: _fetched(result)

        yield submit, AHEAD * at_once


def _fetched(result: Any) -> Scores:
    """Wait for the scores of a task."""
    import ray

    try:
        scores: Scores = ray.get(result)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise InputError(f"On a node of Ray: {error.cause}") from None
        if isinstance(error.cause, ImportError):
            raise InputError(
                f"A node of Ray lacks a package of prediction: {error.cause}; install there what "
                "is installed here."
            ) from None
        raise
    except ray.exceptions.RayError as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"Ray could not score a batch: {reason}; repair the cluster, and continue with "
            "--resume."
        ) from None
    return scores
