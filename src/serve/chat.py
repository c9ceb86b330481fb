"""Serve a language model and its adapters over OpenAI's API, by vLLM or transformers.

    python -m src.serve.chat models/chat/base models/chat/lora tool=models/chat/lora-tools
    python -m src.serve.chat models/chat/ptuning --engine transformers

answers at http://127.0.0.1:8000/v1; docs/chat.md describes the rest.
"""

import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Annotated, Literal

from src.core import stage
from src.core.command_line import Count, Interval, Natural, Threads
from src.core.errors import InputError
from src.predict.chat.models import ChatModel, EngineName, EngineOptions, chat_models, command
from src.predict.chat.process import EngineProcess
from src.serve.__main__ import read_key
from src.serve.server import in_address, listen

PLAYGROUND = Path(__file__).parent / "playground"
MEMORY = Path("/proc/meminfo")
SPARE = 2**30  # bytes that an engine takes beside weights and what it keeps of prompts

log = logging.getLogger("src.serve.chat")


def main(
    model: Path,
    *more: Path,
    base: str = "models/chat/base",
    engine: EngineName = "vllm",
    host: str = "127.0.0.1",
    port: Annotated[int, Interval(ge=1, le=65535)] = 8000,
    threads: Threads = 2,
    max_length: Natural = 0,
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto",
    kv_space: Count = 1,
    max_clients: Count = 32,
    tensor_parallel: Count = 1,
    pipeline_parallel: Count = 1,
    ray: bool = False,
    drain: Natural = 30,
    hosts: str = "localhost,127.0.0.1,[::1]",
    api_key_file: str = "",
    feedback: str = "",
) -> None:
    """Serve a model and its adapters until SIGTERM; requests name one, by its folder's name.

    Another name is given as in tool=models/chat/lora. --base is the model that adapters were
    trained on, if no folder is a whole model. --engine vllm serves LoRA adapters beside their model
    from the environment that `make vllm` makes; --engine transformers serves P-Tuning too, from
    this one. --max_length is the most tokens of a prompt and its answer, 0 for what the model
    reads; --kv_space the GiB of memory for keys and values on a processor; --max_clients how many
    requests are answered together; --tensor_parallel and --pipeline_parallel over how many GPUs the
    weights are divided; --ray over those of a Ray cluster. --drain is the time, in seconds, that
    requests have to end after SIGTERM. --hosts are the names that clients may use for the server,
    separated by commas, or * for any. The key that clients must send is in --api_key_file or in the
    environment variable SERVE_API_KEY; with neither, no key is needed. --feedback is a file of
    JSON lines that gets the conversations that people on the page call good, as data.source reads
    them; what they call bad goes to one beside it that ends in .down.jsonl.
    """
    found = chat_models([model, *more], Path(base))
    options = EngineOptions(
        host=host,
        port=port,
        threads=threads,
        hosts=[in_address(name.strip().lower()) for name in (*hosts.split(","), host)],
        key=os.fsdecode(read_key(api_key_file)),
        page=str(PLAYGROUND),
        feedback=feedback and str(_file(feedback)),
        max_length=max_length,
        dtype=dtype,
        kv_space=kv_space,
        max_clients=max_clients,
        tensor_parallel=tensor_parallel,
        pipeline_parallel=pipeline_parallel,
        ray=ray,
        drain=drain,
    )
    words, variables = command(found, engine, options)
    _refuse_too_large(found, engine, kv_space)
    listen(host, port).close()  # what is taken is told before the models are loaded
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    file = Path("logs") / f"{time.strftime('%Y%m%dT%H%M%S')}-{engine}-{os.getpid()}.log"
    url = f"http://{in_address(host)}:{port}"
    _serve(EngineProcess(words, variables, file), found, url, drain, ended)


def _serve(
    process: EngineProcess,
    models: list[ChatModel],
    url: str,
    drain: int,
    ended: threading.Event,
) -> None:
    try:
        process.wait_until_ready(f"{url}/health", log.info, ended.is_set)
        if not ended.is_set():
            names = ", ".join(one.name for one in models)
            log.info("serving %s at %s/v1, and a page to talk to them at %s", names, url, url)
        while not ended.wait(0.2):
            if process.code is not None:
                raise InputError(f"The engine has ended, and the server with it ({process.why()}")
    finally:
        process.end(drain)
    log.info("ended")


def _file(feedback: str) -> Path:
    """Return the file that gets what people think; InputError if nothing can be written there."""
    path = Path(feedback).absolute()
    if path.suffix != ".jsonl":
        raise InputError(f"--feedback is {feedback}: give it a name that ends in .jsonl.")
    try:
        path.open("a").close()
    except OSError as error:
        raise InputError(
            f"--feedback is {feedback}, which can't be written ({error.strerror}): name a file of "
            "a folder that is there."
        ) from None
    return path


def _refuse_too_large(models: list[ChatModel], engine: EngineName, kv_space: int) -> None:
    """Stop if the weights and what is kept of prompts are more than the memory that is free."""
    if not MEMORY.exists():  # a system that does not tell
        return
    sizes = [sum(p.stat().st_size for p in one.folder.glob("*.safetensors")) for one in models]
    if engine == "transformers":  # in which each adapter has the model to itself
        sizes += [sizes[0]] * (len(models) - 1)
    needed = sum(sizes) + kv_space * 2**30 + SPARE
    lines = dict(line.split(":") for line in MEMORY.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    if needed > free:
        raise InputError(
            f"The models need about {needed / 2**30:.1f} GiB and {free / 2**30:.1f} are free: end "
            "other programs, lower --kv_space, or serve the model in 4 bits."
        )


if __name__ == "__main__":
    stage.run(main, section=False)
