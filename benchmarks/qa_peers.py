"""Haystack's extractive reader, which ``qa.py answer`` asks by lines of JSON.

    PYTHON benchmarks/qa_peers.py MODEL

in an environment of its own with ``qa-peers.txt``. The first line that it reads has the paragraphs;
each further one has questions, with a row of a paragraph or none, and it answers with the seconds
that they took one by one, and the answers.
"""

import json
import sys
import time
from typing import Any

from haystack import Document, Pipeline
from haystack.components.readers import ExtractiveReader
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import ComponentDevice

FOUND = 10  # paragraphs that are read of the book


def text_of(answers: list[Any]) -> str:
    """The best answer that is one; Haystack has that there is none among them."""
    return next((str(one.data) for one in answers if one.data is not None), "")


def main() -> None:
    """Answer until the end of standard input."""
    device = ComponentDevice.from_str("cpu")
    reader = ExtractiveReader(sys.argv[1], device=device, top_k=1)
    reader.warm_up()
    paragraphs = [Document(content=text) for text in json.loads(sys.stdin.readline())]
    store = InMemoryDocumentStore()
    store.write_documents(paragraphs)
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store, top_k=FOUND))
    pipeline.add_component("reader", reader)
    pipeline.connect("retriever.documents", "reader.documents")
    for line in sys.stdin:
        answers = []
        start = time.perf_counter()
        for question, row in json.loads(line):
            if row is None:
                words = {"retriever": {"query": question}, "reader": {"query": question}}
                found = pipeline.run(words)["reader"]["answers"]
            else:
                found = reader.run(query=question, documents=[paragraphs[row]])["answers"]
            answers.append(text_of(found))
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "answers": answers}), flush=True)


if __name__ == "__main__":
    main()
