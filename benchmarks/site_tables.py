"""The tables of the site, as rows of text with the numbers they sort by."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.methods import OURS
from benchmarks.metrics import METRICS, Metric, by_method, level_of, mean_of, quality_of, usual_processor
from benchmarks.ranks import Standing, standings
from benchmarks.site_words import BASELINE, compared, leads, mean_ranks, places
from ot_lift.report_tables import Cell, Column, Notes, Row, Table

Record = Mapping[str, Any]


def task_table(records: Sequence[Record]) -> Table:
    """Every method of a task, the best first: rank with its interval, and each figure's mean and spread over seeds.

    Args:
        records: Of one task.

    Returns:
        Bold is what no other method beats beyond noise.
    """
    quality = quality_of(records)
    shown = [metric for metric in METRICS if by_method(records, metric.key)]
    shown.sort(key=lambda metric: metric is not quality)
    found = places(records)
    failed = [name for name in dict.fromkeys(record["method"] for record in records) if name not in found]
    columns = [_Column.of(metric, records) for metric in shown]
    rows = [
        Row(
            name,
            name.startswith(OURS),
            (_rank(found.get(name)), *(column.cell(name) for column in columns), _ended_well(name, records)),
        )
        for name in (*found, *failed)
    ]
    headings = [Column(metric.title, _unit(metric, records)) for metric in shown]
    return Table((Column("method"), Column("rank", "95%", sorted=True), *headings, Column("seeds")), tuple(rows))


def _unit(metric: Metric, records: Sequence[Record]) -> str:
    if metric.null:
        return f"null level {metric.show(level_of(records, metric))}"
    return {-1: "less is better", 0: "", 1: "more is better"}[metric.better]


class _Column:
    """One figure of every method."""

    def __init__(self, metric: Metric, values: Mapping[str, Mapping[int, float]], best: Sequence[str]) -> None:
        self._metric, self._values, self._best = metric, values, best

    @classmethod
    def of(cls, metric: Metric, records: Sequence[Record]) -> _Column:
        values = by_method(records, metric.key)
        best: list[str] = []
        if metric.better:
            among = [name for name in compared(records) if not (metric.race and name == BASELINE)]
            part = {name: own for name, own in values.items() if name in among}
            sign = {name: {s: -metric.better * v for s, v in own.items()} for name, own in part.items()}
            floor = level_of(records, metric) if metric.better < 0 else -float("inf")
            ranked = standings(sign, floor=floor, additive=metric.additive)
            best = [name for name, standing in ranked.items() if standing.best == 1 and standing.seeds > 1]
        return cls(metric, values, best)

    def cell(self, name: str) -> Cell:
        own = self._values.get(name)
        if not own:
            return Cell("–")
        mean, show = mean_of(own), self._metric.show
        return Cell(show(mean), mean, name in self._best, f"± {show(_spread(own, mean))}" if len(own) > 1 else "")


def _spread(own: Mapping[int, float], mean: float) -> float:
    """Standard deviation over seeds; none where only the last bits tell the values apart."""
    spread = statistics.stdev(own.values())
    return spread if spread > 1e-12 * abs(mean) else 0.0


def _rank(standing: Standing | None) -> Cell:
    if standing is None:
        return Cell("–")
    best = standing.best == 1 and standing.seeds > 1
    return Cell(str(standing.rank), standing.rank, best, _interval(standing) or "one seed")


def _interval(standing: Standing) -> str:
    if standing.seeds < 2:
        return ""
    return str(standing.best) if standing.best == standing.worst else f"{standing.best} to {standing.worst}"


def _ended_well(name: str, records: Sequence[Record]) -> Cell:
    own = [record for record in records if record["method"] == name]
    well = sum(record["status"] == "ok" for record in own)
    usual = usual_processor(records)
    marked = sum(record["timing"]["contended"] or record["machine"]["cpu"] != usual for record in own)
    return Cell(f"{well} of {len(own)}", well, small=f"{marked} time{'s' * (marked > 1)} marked" if marked else "")


def overview_table(tasks: Mapping[str, Sequence[Record]]) -> Table:
    """Quality by method and task, with each method's mean rank; a failure counts as the last place.

    Args:
        tasks: Records by task.

    Returns:
        What is ranked nowhere comes last.
    """
    standing = {task: places(records) for task, records in tasks.items()}
    values = {task: by_method(records, quality_of(records).key) for task, records in tasks.items()}
    ranks = mean_ranks(tasks)
    rows = []
    every = dict.fromkeys(record["method"] for records in tasks.values() for record in records)
    unranked = [name for name in every if name not in ranks]
    for name in (*ranks, *unranked):
        mean = Cell(f"{ranks[name]:.1f}", ranks[name]) if name in ranks else Cell("–")
        cells = [
            _quality(quality_of(records), values[task].get(name), standing[task].get(name))
            for task, records in tasks.items()
        ]
        rows.append(Row(name, name.startswith(OURS), (mean, *cells)))
    headings = [Column(task, quality_of(records).title) for task, records in tasks.items()]
    return Table((Column("method"), Column("mean rank", sorted=True), *headings), tuple(rows))


def ranks_table(tasks: Mapping[str, Sequence[Record]]) -> Table:
    """Every method's mean rank, on how many of its tasks it is first, and on how many none is better beyond noise.

    Args:
        tasks: Records by task.
    """
    standing = {task: places(records) for task, records in tasks.items()}
    rows = []
    for name, rank in mean_ranks(tasks).items():
        tried = [task for task, records in tasks.items() if name in compared(records)]
        own = [standing[task][name] for task in tried if name in standing[task]]
        counts = sum(one.rank == 1 for one in own), sum(leads(one) for one in own)
        cells = Cell(f"{rank:.1f}", rank), *(Cell(f"{count} of {len(tried)}", count) for count in counts)
        rows.append(Row(name, name.startswith(OURS), cells))
    columns = Column("mean rank", sorted=True), Column("first"), Column("first or tied", "not told apart")
    return Table((Column("method"), *columns), tuple(rows))


def _quality(metric: Metric, own: Mapping[int, float] | None, standing: Standing | None) -> Cell:
    if not own:
        return Cell("–")
    if standing is None:
        return Cell(metric.show(mean_of(own)), mean_of(own), small="not ranked")
    interval = "" if standing.seeds < 2 else f"rank {_interval(standing)}"
    best = standing.best == 1 and standing.seeds > 1
    return Cell(metric.show(mean_of(own)), mean_of(own), best, interval)


def method_notes(records: Sequence[Record]) -> list[Notes]:
    """Settings and notes of every method, from its first record."""
    found: dict[str, Record] = {}
    for record in records:
        found.setdefault(record["method"], record)
    return [
        Notes(
            name,
            (
                f"settings: {_listed(record['settings']['method'])}",
                *record["notes"],
                *(f"its process said: {line}" for line in record["messages"][:5]),
                *([f"training was ended by {record['details']['stop_reason']}"] if _stopped(record) else []),
            ),
        )
        for name, record in found.items()
    ]


def _stopped(record: Record) -> bool:
    return "stop_reason" in record["details"]


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in settings.items()) or "none"


def task_settings(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Settings of a task, by name; several where the records do not agree."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        for name, value in record["settings"]["task"].items():
            if name not in ("name", "title", "words"):
                found.setdefault(name.replace("_", " "), {})[str(value)] = None
    return [(name, " or ".join(values)) for name, values in found.items()]
