"""Folders of language models and adapters, and the process that answers by them.

An engine speaks OpenAI's API: vLLM's own server, in an environment of its own, or ``src.chat.api``
over transformers, in this one. Nothing of either is imported here.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from src.core.errors import InputError, closest
from src.predict.chat import front
from src.predict.foreign import refusing
from src.predict.naming import named

ROOT = Path(__file__).parents[3]
FRONT = "src.predict.chat.front.Front"  # what stands before an engine, by its path of import
VLLM = Path(".venv-vllm/bin/python")
RECORD = "base.json"  # which the pipeline leaves in each folder: of which weights it is
ADAPTER = "adapter_config.json"
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # of adapters, that vLLM makes room for

FOR_VLLM = (
    *("max_length", "dtype", "kv_space", "max_clients"),
    *("tensor_parallel", "pipeline_parallel", "ray"),
)

EngineName = Literal["vllm", "transformers"]


@dataclass(frozen=True)
class ChatModel:
    """A model to serve.

    Attributes:
        name: by which requests choose it.
        folder: its own.
        adapter: PEFT's settings, of an adapter; {} of a whole model.
        record: of which weights and template it is.
    """

    name: str
    folder: Path
    adapter: Mapping[str, Any]
    record: Mapping[str, Any]


def chat_models(folders: Sequence[Path], base: Path) -> list[ChatModel]:
    """Read what is to be served; the whole model that adapters belong to comes first.

    Args:
        folders: of whole models and adapters, each maybe as NAME=FOLDER.
        base: the model that adapters were trained on, if none of the folders is a whole one.

    Raises:
        InputError: one is no model, has the name of another, or is an adapter of another model.
    """
    found = [_model(*one) for one in named(folders)]
    whole = [one for one in found if not one.adapter]
    if not whole:
        whole = [_model(*one) for one in named([base])]
        named([base, *folders])  # which are not to have one name
    if len(whole) > 1:
        raise InputError(
            f"{whole[0].folder} and {whole[1].folder} are both whole models: serve one with its "
            "adapters, and the other by another server, at another --port."
        )
    for one in found:
        if one.adapter:
            _refuse_other_base(one, whole[0])
    return [*whole, *(one for one in found if one.adapter)]


def _model(name: str, folder: Path) -> ChatModel:
    adapter = folder / ADAPTER
    if not adapter.exists() and not (folder / "config.json").exists():
        inside = sorted({str(p.parent) for n in (RECORD, ADAPTER) for p in folder.glob(f"*/{n}")})
        gone = "" if folder.is_dir() else ", which is no folder"
        near = closest(folder.name, (path.name for path in folder.parent.glob("*")))
        there = f"name one of those in it, {', '.join(inside)}" if inside else "name another folder"
        gone += near * (not folder.is_dir())
        raise InputError(f"There is no model in {folder}{gone}: {there}.")
    return ChatModel(name, folder, _read(adapter), _read(folder / RECORD))


def _read(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    with refusing(f"{path} can't be read", "get it again"):
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not found:
            raise ValueError("it is no object of JSON")
    return found


def _refuse_other_base(adapter: ChatModel, base: ChatModel) -> None:
    for key, what in (("sha256", "weights"), ("template_sha256", "chat template")):
        wanted, is_there = adapter.record.get(key), base.record.get(key)
        if wanted != is_there:
            raise InputError(
                f"{adapter.folder} was trained on another model than {base.folder}, whose {what} "
                "are not the same by their sha256: name the one that it belongs to with --base, or "
                "before it."
            )


def refuse_for_vllm(models: Sequence[ChatModel]) -> None:
    """Raise an ``InputError`` if vLLM can't serve one of these."""
    light = "serve it by --engine transformers"
    for one in models:
        kind = one.adapter.get("peft_type", "LORA")
        if kind != "LORA":
            raise InputError(
                f"{one.folder} is an adapter of kind {kind}, such as P-Tuning, which vLLM can't "
                f"serve: {light}."
            )
        if one.adapter.get("use_dora"):
            raise InputError(
                f"{one.folder} has weights decomposed by DoRA, which vLLM can't serve beside its "
                f"model: merge it (`dvc repro chat/dvc.yaml:merge`), or {light}."
            )
        if int(one.adapter.get("r", 0)) > RANKS[-1]:
            raise InputError(
                f"{one.folder} has rank {one.adapter['r']}, and vLLM serves at most {RANKS[-1]}: "
                "merge it, or train one of a lower rank."
            )
    config = _read(models[0].folder / "config.json")
    packed = config.get("quantization_config") or {}
    if packed.get("quant_method") == "bitsandbytes":
        raise InputError(
            f"{models[0].folder} is packed by bitsandbytes, for which vLLM has no loader: serve "
            f"what `quantize` wrote, or {light}."
        )


@dataclass(frozen=True)
class EngineOptions:
    """How an engine works, and for whom.

    Attributes:
        host: the address to listen at.
        port: likewise.
        threads: of the processor.
        hosts: the names that clients may use for it, * for any.
        key: what clients must send; "" for nothing.
        page: the folder of the playground; "" for no page.
        feedback: the file that gets what people think of answers; "" for none.
        max_length: the most tokens of a prompt and its answer; 0 for what the model reads.
        dtype: what vLLM computes in.
        kv_space: GiB for keys and values on a processor.
        max_clients: how many requests are answered together.
        tensor_parallel: over how many GPUs each layer is divided.
        pipeline_parallel: over how many the layers are.
        ray: whether they are those of a Ray cluster.
        drain: seconds that requests have to end after SIGTERM.
    """

    host: str
    port: int
    threads: int
    hosts: Sequence[str] = ("*",)
    key: str = ""
    page: str = ""
    feedback: str = ""
    max_length: int = 0
    dtype: str = "auto"
    kv_space: int = 1
    max_clients: int = 32
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    ray: bool = False
    drain: int = 30


def command(
    models: Sequence[ChatModel], engine: EngineName, options: EngineOptions
) -> tuple[list[str], dict[str, str]]:
    """Return the command of an engine, and the variables that it needs.

    Args:
        models: of ``chat_models``.
        engine: which.
        options: how.

    Raises:
        InputError: it can't serve one of the models, or is not installed.
    """
    words, variables = (_vllm if engine == "vllm" else _transformers)(models, options)
    variables |= {front.HOSTS: ",".join(options.hosts), front.KEY: options.key}
    variables |= {front.PAGE: options.page, front.FEEDBACK: options.feedback}
    return [*words, "--middleware", FRONT], variables | {"PYTHONPATH": str(ROOT)}


def _transformers(
    models: Sequence[ChatModel], options: EngineOptions
) -> tuple[list[str], dict[str, str]]:
    usual = {one.name: one.default for one in fields(EngineOptions)}
    for name in FOR_VLLM:
        if getattr(options, name) != usual[name]:
            raise InputError(f"--{name} is for --engine vllm: leave it out.")
    words = [sys.executable, "-m", "src.chat.api", *(f"{one.name}={one.folder}" for one in models)]
    words += ["--base", str(models[0].folder), "--host", options.host, "--port", str(options.port)]
    return [*words, "--threads", str(options.threads), "--drain", str(options.drain)], {}


def _adapters(adapters: Sequence[ChatModel]) -> list[str]:
    """Return the words by which vLLM serves adapters beside their model, which stays as it is.

    On a processor, vLLM 0.32 computes the tokens of the model itself by its last place for an
    adapter, so that one is left free: its weights are 0. And it breaks on `prompt_logprobs` in a
    batch with others if the head may have an adapter, so only the layers that have one are named.
    """
    rank = max(int(one.adapter.get("r", 8)) for one in adapters)
    words = ["--enable-lora", "--max-loras", str(len(adapters) + 1)]
    words += ["--max-lora-rank", str(next(one for one in RANKS if one >= rank))]
    layers = [one.adapter.get("target_modules") for one in adapters]
    named = [each for each in layers if isinstance(each, list)]
    if len(named) == len(layers):
        words += ["--lora-target-modules", *sorted({name for each in named for name in each})]
    return [*words, "--lora-modules", *(f"{one.name}={one.folder}" for one in adapters)]


def _vllm(models: Sequence[ChatModel], options: EngineOptions) -> tuple[list[str], dict[str, str]]:
    refuse_for_vllm(models)
    if not VLLM.exists():
        raise InputError(
            f"There is no {VLLM}: run `make vllm`, which makes it, or choose --engine transformers."
        )
    base, *adapters = models
    words = [str(VLLM), "-m", "vllm.entrypoints.openai.api_server", "--model", str(base.folder)]
    words += ["--served-model-name", base.name, "--host", options.host, "--port", str(options.port)]
    words += ["--dtype", options.dtype, "--max-num-seqs", str(options.max_clients)]
    words += ["--disable-log-stats", "--shutdown-timeout", str(options.drain)]
    if options.max_length:
        words += ["--max-model-len", str(options.max_length)]
    if adapters:
        words += _adapters(adapters)
    if base.record.get("tool_calls") == "hermes":
        words += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    if options.tensor_parallel > 1:
        words += ["--tensor-parallel-size", str(options.tensor_parallel)]
    if options.pipeline_parallel > 1:
        words += ["--pipeline-parallel-size", str(options.pipeline_parallel)]
    if options.ray:
        words += ["--distributed-executor-backend", "ray"]
    return words, {
        "VLLM_CPU_KVCACHE_SPACE": str(options.kv_space),
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(options.threads),
    }
