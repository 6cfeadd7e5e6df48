"""Figures: samples gathered by row, medians, and the table."""

import statistics
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Goal:
    """`Goal("<=", 1.2)`: of the ratio where a row is compared with something, else of the figure."""

    how: str
    value: float

    def is_met(self, figure: float) -> bool:
        return figure >= self.value if self.how == ">=" else figure <= self.value

    def __str__(self) -> str:
        return f"{self.how} {self.value:.4g}"


@dataclass
class Row:
    what: str
    unit: str
    peer: str = ""
    goal: Goal | None = None
    note: str = ""
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    not_run: str = ""

    def ratios(self) -> list[float]:
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs)]

    def figures(self) -> dict:
        """All that the table shows, by name."""
        result: dict = {"what": self.what, "unit": self.unit, "compared_with": self.peer}
        if self.goal:
            result["goal"] = str(self.goal)
        if self.note:
            result["note"] = self.note
        if self.not_run:
            return result | {"not_run": self.not_run}
        ratios = self.ratios()
        spread = ratios or self.ours
        result["samples"] = len(self.ours)
        result["ours"] = statistics.median(self.ours)
        if ratios:
            result["theirs"] = statistics.median(self.theirs)
            result["ratio"] = statistics.median(ratios)
        result["least"], result["most"] = min(spread), max(spread)
        if self.floor:
            pairs = zip(self.ours, self.floor)
            result["ratio_to_floor"] = statistics.median(a / b for a, b in pairs)
        if self.goal:
            result["met"] = self.goal.is_met(result["ratio" if ratios else "ours"])
        return result


class Report:
    def __init__(self) -> None:
        self.sections: dict[str, dict[tuple[str, str], Row]] = {}

    def _row(self, section: str, what: str, unit: str, peer: str, goal, note: str) -> Row:
        rows = self.sections.setdefault(section, {})
        return rows.setdefault((what, peer), Row(what, unit, peer, goal, note))

    def sample(
        self,
        section: str,
        what: str,
        unit: str,
        ours: float,
        theirs: float | None = None,
        peer: str = "",
        goal: Goal | None = None,
        floor: float | None = None,
        note: str = "",
    ) -> None:
        """One more measurement of a row; `ours`, `theirs` and `floor` are of one round."""
        row = self._row(section, what, unit, peer, goal, note)
        row.ours.append(ours)
        if theirs is not None:
            row.theirs.append(theirs)
        if floor is not None:
            row.floor.append(floor)

    def not_run(self, section: str, what: str, why: str, peer: str = "", goal=None) -> None:
        self._row(section, what, "", peer, goal, "").not_run = why

    def add_first_touches(self, rates: list[float]) -> None:
        for rate in rates:
            self.sample("The machine", "first touch of memory", "GB/s", rate / 1e9)

    def as_json(self) -> list[dict]:
        return [
            {"section": section} | row.figures()
            for section, rows in self.sections.items()
            for row in rows.values()
        ]

    def table(self) -> str:
        lines = [
            f"{'':50}{'':>6}{'ours':>8}{'theirs':>8}{'ratio':>7}  {'least–most':13}{'floor':>6}"
            f"  {'goal':10}{'met':5}compared with"
        ]
        for section, rows in self.sections.items():
            lines += ["", section]
            lines += [_line(row.figures()) for row in rows.values()]
        return "\n".join(lines)


def _line(row: dict) -> str:
    name = f"  {row['what']:48}"
    goal = row.get("goal", "")
    met = {True: "yes", False: "NO"}.get(row.get("met"), "")
    after = row["compared_with"]
    if "note" in row:
        after = f"{after} ({row['note']})" if after else f"({row['note']})"
    if "not_run" in row:
        return f"{name}not run: {row['not_run']}; goal {goal or '—'}; {after}".rstrip("; ")
    if row["unit"] == "y/n":
        answer = "yes" if row["least"] == 1 else "no"
        return f"{name}{answer:>14}{'':38}{met:5}{after}"
    spread = f"{_number(row['least'])}–{_number(row['most'])}"
    floor = _number(row["ratio_to_floor"]) if "ratio_to_floor" in row else ""
    theirs = _number(row["theirs"]) if "theirs" in row else ""
    ratio = _number(row["ratio"]) if "ratio" in row else ""
    line = (
        f"{name}{row['unit']:>6}{_number(row['ours']):>8}{theirs:>8}{ratio:>7}  {spread:13}"
        f"{floor:>6}  {goal:10}{met:5}{after}"
    )
    return line.rstrip()


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
