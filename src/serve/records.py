"""Records of tables in JSON: what a model decides for, and what pushed it there."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from src.serve.errors import invalid, too_large
from src.serve.models import TableModel
from src.serve.request import Limits, hint, json_answer, while_wanted
from src.serve.service import Service

Value = Annotated[
    float | int | bool | str | None, Meta(title="a number, true, false, a text or null")
]
Record = dict[str, Value]


class Change(Struct):
    """What a column does to the probability."""

    column: str
    value: Value
    usual: Value
    change: Annotated[
        float, Meta(description="The probability, minus that with the usual value in this column.")
    ]


class Decided(Struct, omit_defaults=True):
    """What a model says of a record."""

    label: str
    probability: Annotated[
        float,
        Meta(description="Of the positive label; where there are more than two, of the label."),
    ]
    probabilities: dict[str, float]
    changes: Annotated[
        list[Change] | UnsetType,
        Meta(description="With explain: true. The largest first, up or down."),
    ] = UNSET
    columns_left: Annotated[
        int | UnsetType, Meta(description="Columns that no change was computed for.")
    ] = UNSET


async def answer(
    service: Service,
    request: Request,
    records: Sequence[Record],
    name: str | None,
    explain: bool,
    until: float,
) -> Response:
    """Answer records of ``/predict``."""
    model = service.table_model(name)
    if explain and len(records) != 1:
        invalid(f"explain is for one record, and there are {len(records)}: send one.")
    check_count(len(records), service.limits, "records")
    columns = _columns(model, records)
    features = features_of(model, columns, len(records), "records", service.limits)
    if not explain:
        items = model.scorer.items(features)
        work = service.decided(model, items, until)
        shares, answers = await while_wanted(request, work, until)
        return json_answer(
            [
                Decided(one.label, one.probability, dict(zip(model.labels, row, strict=True)))
                for one, row in zip(answers, shares.tolist(), strict=True)
            ]
        )
    leading = model.leading(service.limits.max_words)
    items = model.scorer.items(model.records.varied(features, leading))
    # Nobody sent the records with usual values, so figures do not count them.
    work = service.decided(model, items, until, counted=1)
    shares, answers = await while_wanted(request, work, until)
    told = model.records.positive or answers[0].label
    of_label = shares[:, model.labels.index(told)].tolist()
    usual = model.records.usual
    changes = [
        Change(column.name, records[0][column.name], usual[column.name], of_label[0] - without)
        for column, without in zip(leading, of_label[1:], strict=True)
    ]
    return json_answer(
        [
            Decided(
                answers[0].label,
                answers[0].probability,
                dict(zip(model.labels, shares[0].tolist(), strict=True)),
                sorted(changes, key=lambda one: -abs(one.change)),
                len(columns) - len(leading),
            )
        ]
    )


def check_count(records: int, limits: Limits, name: str) -> None:
    """Refuse too many records."""
    if records > limits.max_items:
        too_large(f"{name} has {records} records: send at most {limits.max_items} at once.")


def features_of(
    model: TableModel, columns: Mapping[str, Sequence[Any]], rows: int, name: str, limits: Limits
) -> dict[str, Any]:
    """Read columns of values; a value that can't be read, or is too long, is refused."""
    for column in model.records.columns:
        for row, value in enumerate(columns[column]):
            if isinstance(value, str) and len(value) > limits.max_characters:
                too_large(
                    f"{name}[{row}] has {len(value)} characters in {column!r}: send at most "
                    f"{limits.max_characters}."
                )
    features, reasons = model.records.features(columns, rows)
    for row, reason in enumerate(reasons):
        if reason:
            invalid(f"{name}[{row}] has {reason}: correct it.")
    return features


def _columns(model: TableModel, records: Sequence[Record]) -> dict[str, list[Value]]:
    """Return the values of each column that the model reads."""
    names = model.records.columns
    for row, record in enumerate(records):
        if lacking := [name for name in names if name not in record]:
            invalid(
                f"records[{row}] has no {lacking[0]!r}{hint(lacking[0], record)}: send every "
                "column of the model, null where a value is not known."
            )
    return {name: [record[name] for record in records] for name in names}
