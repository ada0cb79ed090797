"""``vaelab study``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaelab.cli.output import output, table
from vaelab.config import assignment, merge
from vaelab.errors import ConfigError, VaelabError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaelab.studies.watch import State


def study(
    source: Annotated[
        str,
        typer.Argument(help="A study that comes with vaelab, a YAML file, or a study's folder."),
    ],
    preset: Annotated[
        str | None,
        typer.Option(
            help="One of the study's presets, such as quick or full.",
            show_default="quick, if it has one",
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Trainings of every case.")] = None,
    data: Annotated[str | None, typer.Option("--data", "-d", help="mnist, or a path.")] = None,
    fractions: Annotated[
        str | None,
        typer.Option(help="Of an augmentation study: shares of the labels, such as 0.01,0.1,1."),
    ] = None,
    generators: Annotated[
        str | None,
        typer.Option(help="Of an augmentation study: which, such as cvae,vae-pools."),
    ] = None,
    lead: Annotated[
        str | None,
        typer.Option(
            help="The figure that comparisons are about, such as balanced_accuracy or frechet.",
            show_default="the study's own",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the study.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at once; they share the cores.", show_default="the cores"),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write all figures to this file as well.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try failed runs again.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", help="A setting of every case, such as -s training.epochs=2."),
    ] = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Write the report of what is done so far.")
    ] = False,
) -> None:
    """Compare networks, optimizers or any settings over several seeds, and say what is decided."""
    from vaelab.api import read_data
    from vaelab.files import write_text
    from vaelab.report.study import write_study_report
    from vaelab.studies import verdict
    from vaelab.studies.plan import Case, with_lead
    from vaelab.studies.results import as_csv, read_results
    from vaelab.studies.study import Study
    from vaelab.studies.watch import default_jobs, run_study, threads
    from vaelab.studies.work import prepare

    if csv is not None and not csv.parent.is_dir():
        raise ConfigError(f"--csv {csv}: there is no folder {csv.parent}.")
    fresh = False
    known = Study(source)
    folder = known if known.plan_file.exists() else Study(out or Path("runs") / Path(source).stem)
    if folder is known:
        if preset or seeds or data or set_ or out or fractions or generators:
            raise ConfigError(
                f"{source}: is a study that was begun, whose plan is settled. Without --preset, "
                "--seeds, --data, --fractions, --generators, --set and --out it goes on."
            )
        if lead:  # no run depends on it
            folder.begin(with_lead(folder.read_plan(), lead, source))
    else:
        fresh = not folder.plan_file.exists()
        folder.begin(
            _plan(
                source,
                preset,
                seeds,
                data,
                set_ or [],
                _numbers(fractions),
                [name.strip() for name in generators.split(",")] if generators else None,
                lead,
            )
        )
    plan = folder.read_plan()
    if not report_only:
        if retry:
            for job in folder.jobs(plan):
                job.retry()
        output.say(f"{plan.title}: {len(plan.cases)} cases, {len(plan.seeds)} seeds, in {folder}")
        try:
            prepare(folder, plan, output.say)
        except VaelabError:
            if fresh:  # nothing was done by this plan, which may be what is wrong
                folder.plan_file.unlink(missing_ok=True)
            raise
        count = jobs or default_jobs()
        try:
            with _progress() as tell:
                run_study(folder, count, threads(count), tell)
        except KeyboardInterrupt:
            output.say(f"Stopped; what was done is kept. Go on with: vaelab study {folder}")
            raise typer.Exit(130) from None
    read: dict[str, Any] = {}

    def images(case: Case) -> Any:
        key = case.config.data.model_dump_json()
        if key not in read:
            read[key] = read_data(case.config)
        return read[key]

    with output.counter("drawing") as progress:
        page = write_study_report(folder, images, progress=progress)
    results = read_results(folder)
    if csv is not None:
        write_text(csv, as_csv(results))
    said = [*verdict.failures(results), *verdict.comparisons(results)]
    lead = verdict.headline(results)
    output.result(
        {"study": str(folder), "report": str(page), "verdict": [lead, *said]},
        [
            lead,
            *said,
            *table(
                [
                    ("report", str(page)),
                    ("summary", str(folder.summary_file)),
                    ("figures", str(folder.csv_file)),
                ]
            ),
        ],
    )
    if any(run.failure is not None for run in results.runs):
        raise typer.Exit(1)  # the verdict is about the others


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--fractions {text}: write numbers, such as 0.01,0.1,1.") from None


def _plan(
    source: str,
    preset: str | None,
    seeds: int | None,
    data: str | None,
    settings: list[str],
    fractions: list[float] | None,
    generators: list[str] | None,
    lead: str | None,
) -> Any:
    from vaelab.studies.plan import make_plan, read_study

    values, where = read_study(source)
    presets = values.get("presets", {})
    if preset is None and isinstance(presets, Mapping) and "quick" in presets:
        preset = "quick"
    base: dict[str, Any] = {} if data is None else {"data": {"spec": data}}
    for text in settings:
        base = merge(base, assignment(text))
    if "seed" in base.get("training", {}):
        raise ConfigError("training.seed: a study trains with several seeds; use --seeds.")
    return make_plan(
        values,
        where,
        preset=preset,
        seeds=seeds,
        base=base,
        fractions=fractions,
        generators=generators,
        lead=lead,
    )


@contextmanager
def _progress() -> Iterator[Callable[[State], None]]:
    """Show how far a study is: a bar and the runs under way on a terminal, else a line a run."""
    from vaelab.studies.watch import describe

    def lines(state: State) -> None:
        for later, job in zip(range(len(state.settled))[::-1], state.settled, strict=True):
            then = replace(state, done=state.done - later)  # of several that ended since
            output.say(f"{describe(then)}: {job}: {job.failure or 'done'}")

    if output.quiet or not sys.stderr.isatty():
        yield lines
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[text]}"),
        console=Console(stderr=True),
    ) as bar:
        whole = bar.add_task("study", text="", total=1.0)
        tasks: dict[str, Any] = {}

        def show(state: State) -> None:
            settled = state.done + state.failed + sum(share for _, share in state.running)
            bar.update(whole, completed=settled, total=state.total, text=describe(state))
            names = {str(job): share for job, share in state.running}
            for name in tasks.keys() - names.keys():
                bar.remove_task(tasks.pop(name))
            for name, share in names.items():
                if name not in tasks:
                    tasks[name] = bar.add_task(name, total=1.0, text="")
                bar.update(tasks[name], completed=share, text=f"{share:.0%}")
            for job in state.settled:
                bar.console.print(f"{job}: {job.failure or 'done'}", markup=False, highlight=False)

        yield show


COMMANDS = (study,)
