"""Servers of an ONNX model as people write them by hand, for benchmarks/serve.py.

    python benchmarks/serve_peers.py fastapi|litserve FOLDER PORT

Both take {"inputs": text} at /predict and answer with labels and scores, as src.serve does.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class Model:
    """A folder that the export stage wrote, with the same threads as src.serve by default."""

    def __init__(self, folder: Path) -> None:
        """Load the folder."""
        manifest = json.loads((folder / "manifest.json").read_text())
        self.labels = manifest["labels"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(manifest["max_length"])
        self.tokenizer.enable_padding(pad_id=manifest["pad_token_id"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)

    def __call__(self, texts: Sequence[str]) -> list[list[dict[str, Any]]]:
        """The labels of each text with their probabilities, the highest first."""
        encodings = self.tokenizer.encode_batch(list(texts))
        feed = {
            "input_ids": np.array([encoding.ids for encoding in encodings]),
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings]),
        }
        (logits,) = self.session.run(["logits"], feed)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = exponentials / exponentials.sum(axis=1, keepdims=True)
        return [
            sorted(
                ({"score": float(s), "label": n} for s, n in zip(row, self.labels, strict=True)),
                key=lambda one: -one["score"],
            )
            for row in scores
        ]


def serve_fastapi(folder: Path, port: int) -> None:
    """FastAPI as its tutorial has it: a function of its thread pool for each request."""
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Body(BaseModel):
        inputs: str

    model, app = Model(folder), FastAPI()

    @app.post("/predict")  # type: ignore[untyped-decorator]
    def predict(body: Body) -> list[dict[str, Any]]:
        return model([body.inputs])[0]

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if "litserve" in sys.argv[1:]:  # whose processes import this file to find the class
    import litserve

    class Api(litserve.LitAPI):  # type: ignore[misc]
        """A model folder, by the steps that LitServe calls."""

        def __init__(self, folder: Path, **options: Any) -> None:
            """Take the folder."""
            super().__init__(**options)
            self.folder = folder

        def setup(self, device: str) -> None:
            """Load the model."""
            self.model = Model(self.folder)

        def decode_request(self, request: dict[str, str]) -> str:
            """Take the text."""
            return request["inputs"]

        def predict(self, texts: Sequence[str]) -> Any:
            """Score a batch."""
            return self.model(texts)

        def encode_response(self, output: Any) -> Any:
            """Give the labels."""
            return output


def serve_litserve(folder: Path, port: int) -> None:
    """LitServe with batches of up to 8, which is what the tokens of src.serve's batch hold."""
    api = Api(folder, max_batch_size=8, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    {"fastapi": serve_fastapi, "litserve": serve_litserve}[sys.argv[1]](
        Path(sys.argv[2]), int(sys.argv[3])
    )
