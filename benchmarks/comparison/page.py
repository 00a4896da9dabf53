"""The figures as docs/benchmarks.md shows them: a table per size, the settings, a plot.

The page's other words are its own: only what stands between the two marks is written anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.comparison.engine import FILTERS, HYBRID, TOP_K, VECTOR
from benchmarks.comparison.run import ADDED, SETTLE, WARM_UP
from benchmarks.comparison.worker import ENGINES, engine_class

PAGE = Path("docs/benchmarks.md")
PLOT = Path("docs/benchmarks-peers.png")
BEGIN, END = "<!-- begin: make bench-peers -->", "<!-- end: make bench-peers -->"
OURS = "moss_local"

Figures = Mapping[str, Mapping[str, Any]]


def table(count: int, figures: Figures) -> str:
    """Return the two tables of one size: what is asked, and what it takes to have it."""
    ours = figures.get(OURS, {})
    lines = [
        f"### {count:,} documents".replace(",", " "),
        "",
        "| | vector p50 | p95 | recall@10 | hybrid p50 | p95 |"
        + "".join(f" filter {kind} |" for kind in FILTERS),
        "|---|" + "--:|" * (5 + len(FILTERS)),
    ]
    for name, own in figures.items():
        if "failed" in own and VECTOR not in own:
            lines.append(f"| {name} | {own['failed']} |" + " |" * (4 + len(FILTERS)))
            continue
        cells = [name, _time(own, ours, VECTOR), _ms(own[VECTOR]["p95"]), _recall(own[VECTOR])]
        if HYBRID in own:
            cells += [_time(own, ours, HYBRID), _ms(own[HYBRID]["p95"])]
        else:
            cells += ["–", "–"]
        for kind in FILTERS:
            cells.append(_filtered(own, ours, kind))
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "| | load | documents/s | add one | first answer | memory | on disk |",
        "|---|" + "--:|" * 6,
    ]
    for name, own in figures.items():
        if "add" not in own:
            continue
        cells = [
            name,
            f"{own['load']:.2f} s" if own["load"] < 10 else f"{own['load']:.0f} s",
            f"{count / own['load']:,.0f}".replace(",", " "),
            _ms(own["add"]),
            f"{own['first']:.2f} s",
            f"{own['memory'] / 1e6:.0f} MB",
            f"{own['disk'] / 1e6:.1f} MB",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(results: Mapping[str, Any]) -> None:
    """Draw the plot and write the tables into the page."""
    draw(results, PLOT)
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest:
        raise ValueError(f"{PAGE} has no {BEGIN}")
    PAGE.write_text(f"{before}{BEGIN}\n{_body(results)}\n{END}{after}", "utf-8")
    print(f"wrote {PAGE} and {PLOT}")


def _body(results: Mapping[str, Any]) -> str:
    machine = results["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    loads = [load for load in results["load"] if load is not None]
    busy = f"{min(loads):.1f} to {max(loads):.1f}" if loads else "unknown"
    wide = ", ".join(machine["instructions"]) or "unknown"
    parts = [
        f"![Time of a query against the number of documents]({PLOT.name})",
        f"Measured on {machine['date']} in one run of {results['minutes']:.0f} minutes:"
        f" {machine['processor']}, {machine['cores']} cores ({wide}), {machine['system']},"
        f" Python {machine['python']}; {packages}."
        f" Load average between the sizes: {busy} on {machine['cores']} cores; above the number of"
        " cores other programs were running, so read the ratios and not the times.",
        f"Times are milliseconds, medians over the rounds of each round's p50 or p95; in brackets"
        f" the ratio to moss_local (above 1: slower than it). All return the {TOP_K} best documents"
        " with text and metadata. `recall@10` and the share in square brackets are against an exact"
        " search; a filter is named by the share of the documents that it lets through.",
    ]
    for count, figures in results["sizes"].items():
        parts.append(table(int(count), figures))
        parts.append(_asked(figures))
    threads = "as each engine chooses"
    if results.get("threads") is not None:
        threads = f"of OpenMP and BLAS: {results['threads']}, of their own as each engine chooses"
    parts.append("### Settings")
    parts.append(
        f"All: the same documents in the same batches, {WARM_UP} questions of each kind before the"
        f" first round and {SETTLE} before each turn, not counted; one caller;"
        f" threads {threads}. Not named is default.\n\n"
        + "\n".join(f"- **{name}**: {engine_class(name).settings}." for name in ENGINES)
    )
    return "\n\n".join(parts)


def _asked(figures: Figures) -> str:
    measured = [own for own in figures.values() if VECTOR in own]
    if not measured:
        return ""
    own = max(measured, key=lambda each: int(each[VECTOR].get("asked", 0)))
    asked = [each[kind].get("asked", 0) for each in measured for kind in FILTERS if kind in each]
    others = max(asked, default=0)
    return (
        f"{own['rounds']} rounds; {own[VECTOR].get('asked')} questions by vector ({others} of those"
        f" that compare every vector) and {others} of each other kind. Load: all documents and"
        f" every index; add one: the median of {ADDED}, with what the engine does to keep it; first"
        " answer: in a new process, the engine's import, opening and one query; memory: resident"
        " after all rounds, above the process that has only imported the engine."
    )


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _time(own: Mapping[str, Any], ours: Mapping[str, Any], kind: str) -> str:
    shown = _ms(own[kind]["p50"])
    if own is ours:
        return f"**{shown}**"
    return f"{shown} ({own[kind]['p50'] / ours[kind]['p50']:.1f} ×)" if kind in ours else shown


def _recall(own: Mapping[str, Any]) -> str:
    return f"{own['recall']:.3f}" if "recall" in own else "–"


def _filtered(own: Mapping[str, Any], ours: Mapping[str, Any], kind: str) -> str:
    return f"{_time(own, ours, kind)} [{_recall(own[kind])}]" if kind in own else "–"


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Draw p50 against the number of documents: by vector, hybrid, and with a filter of 10 %."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = [int(count) for count in results["sizes"]]
    chosen = ((VECTOR, "by vector"), (HYBRID, "by vector and words"), ("10 %", "filter of 10 %"))
    figure, axes = pyplot.subplots(1, len(chosen), figsize=(13, 4.6), sharey=True)
    for axis, (kind, title) in zip(axes, chosen, strict=True):
        for name in ENGINES:
            points = [
                (count, results["sizes"][str(count)][name][kind]["p50"])
                for count in sizes
                if kind in results["sizes"][str(count)].get(name, {})
            ]
            if not points:
                continue
            mine = name == OURS
            axis.plot(
                *zip(*points, strict=True),
                marker="o",
                label=name,
                color="black" if mine else f"C{list(ENGINES).index(name)}",
                linewidth=3 if mine else 1.5,
                zorder=3 if mine else 2,
            )
        axis.set(xscale="log", yscale="log", title=title, xlabel="documents")
        axis.grid(visible=True, which="major", alpha=0.3)
    axes[0].set_ylabel(f"p50 of a query, top {TOP_K} with documents, ms")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(ENGINES) // 2, frameon=False)
    figure.tight_layout(rect=(0, 0.13, 1, 1))
    # No date and no version inside, so that the same figures give the same file.
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
