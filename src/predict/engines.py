"""The engines that a graph in ONNX runs on, and the choice of one."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from src.core.errors import InputError
from src.predict.foreign import one_line, refusing
from src.predict.graph import is_fp32_transformer, names_other_files

Tokens = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
Run = Callable[[Tokens, Tokens], Logits]
Engine = Literal["onnxruntime", "openvino", "cuda"]
EngineOption = Literal["auto", Engine]

CPUINFO = Path("/proc/cpuinfo")
BF16 = {"avx512_bf16", "amx_bf16"}  # flags of a processor on which OpenVINO computes in bf16


def package_of(engine: Engine) -> str:
    """Name the package of an engine."""
    return "openvino" if engine == "openvino" else "onnxruntime"


def choice(path: Path, model: bytes) -> tuple[Engine, str]:
    """Choose the faster engine for a graph on this processor; return why, to be logged.

    That is OpenVINO for a transformer in fp32, if it computes it in bf16. It is not imported, which
    takes half a second, where something else tells already that it would not be used.
    """
    with refusing(f"{path} is not a graph in ONNX"):
        helps = is_fp32_transformer(model)
    if not helps:
        return "onnxruntime", "ONNX Runtime, as all models do that are no transformers in fp32"
    has_bf16 = _has_bf16()
    if has_bf16 is False:
        return "onnxruntime", "ONNX Runtime in fp32, since this processor has no bf16"
    try:
        in_bf16 = _openvino_has_bf16()
    except ModuleNotFoundError:
        gain = " and would compute in bf16, up to 3 times as fast: `pip install openvino`"
        missing = f"ONNX Runtime in fp32, since OpenVINO is not installed{gain if has_bf16 else ''}"
        return "onnxruntime", missing
    except (ImportError, RuntimeError) as error:
        return "onnxruntime", f"ONNX Runtime in fp32, since OpenVINO fails here ({one_line(error)})"
    if not in_bf16:
        return "onnxruntime", "ONNX Runtime in fp32, since OpenVINO has no bf16 on this processor"
    return "openvino", (
        "OpenVINO in bf16, which is faster on this processor; --engine onnxruntime computes in fp32"
    )


def _has_bf16() -> bool | None:
    """Tell whether the processor has instructions for bf16; None where no file says so."""
    text = CPUINFO.read_text() if CPUINFO.exists() else ""
    flags = re.search(r"^flags\s*:(.*)", text, re.MULTILINE)
    return bool(BF16.intersection(flags[1].split())) if flags else None


def _openvino_has_bf16() -> bool:
    """Ask OpenVINO whether it computes in bf16 on this processor."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def load(path: Path, model: bytes, threads: int, engine: Engine) -> Run:
    """Return what turns ``input_ids`` and ``attention_mask``, [texts, tokens], into logits.

    The graph is loaded from the bytes that were verified, and names no others.
    """
    if engine == "openvino":
        _refuse_other_files(path, model)
        return _openvino(path, model, threads)
    session = start(path, model, threads, engine)

    def run(ids: Tokens, mask: Tokens) -> Logits:
        feed = {"input_ids": ids, "attention_mask": mask}
        scores: Logits = session.run(["logits"], feed)[0]
        return scores

    return run


def _refuse_other_files(path: Path, model: bytes) -> None:
    with refusing(f"{path} is not a graph in ONNX"):
        elsewhere = names_other_files(model)
    if elsewhere:
        raise InputError(
            f"{path} has values that lie in another file, which is not read: export the model with "
            "all of its values in model.onnx."
        )


def _openvino(path: Path, model: bytes, threads: int) -> Run:
    try:
        import openvino
        from openvino.frontend import FrontEndManager
    except ImportError:
        raise InputError(
            "--engine openvino needs the package openvino, which is not installed: "
            "`pip install openvino`, or use another engine."
        ) from None
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    try:
        with refusing(f"{path} is not a graph that OpenVINO loads"):
            # As ONNX: from what the bytes look like, it would load other formats as well.
            onnx = FrontEndManager().load_by_framework("onnx")
            graph = onnx.convert(onnx.load(io.BytesIO(model)))
            compiled = openvino.Core().compile_model(graph, "CPU", settings)
    except InputError as error:
        # It names what it lacks; the rest is about its own source.
        lacking = re.search("No conversion rule found for operations: (.+)", str(error.__cause__))
        if lacking is None:
            raise
        raise InputError(
            f"OpenVINO can't run this model, which has {one_line(lacking[1])}: use --engine "
            "onnxruntime."
        ) from error
    return lambda ids, mask: compiled({"input_ids": ids, "attention_mask": mask})["logits"]


def start(path: Path, model: bytes, threads: int, engine: Engine = "onnxruntime") -> Any:
    """Return a session of onnxruntime for the bytes of a graph, which name no other files."""
    import onnxruntime

    _refuse_other_files(path, model)
    provider = "CUDAExecutionProvider" if engine == "cuda" else "CPUExecutionProvider"
    if provider not in (available := onnxruntime.get_available_providers()):
        raise InputError(
            f"--engine {engine} needs an onnxruntime with {provider}, and this one has "
            f"{', '.join(available)}: `pip install onnxruntime-gpu` in place of onnxruntime, on a "
            "machine with a GPU, or use another engine."
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # How long a thread that waits for others keeps its core from other processes: measured, see
    # docs/performance.md.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "500")
    options.log_severity_level = 4  # what it logs has the graph's names raw; what fails is raised
    options.add_session_config_entry("session.load_model_format", "ONNX")  # not its own format
    with refusing(f"{path} is not a graph that onnxruntime loads"):
        session = onnxruntime.InferenceSession(model, options, providers=[provider])
    if provider not in session.get_providers():  # it falls back to the CPU with no more than a line
        raise InputError(
            f"--engine {engine} needs a GPU, and {provider} does not start here: see its message "
            "above, or use another engine."
        )
    return session
