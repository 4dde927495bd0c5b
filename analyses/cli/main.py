"""The command ``interp``. Arguments are parsed before anything heavy is imported, so ``--help`` is quick.

Exit codes: 0 done, 2 bad input or a full disk (one line on stderr), 1 failure (one line naming a log file),
130 interrupted (Ctrl-C, or told to stop by SIGTERM or SIGHUP).
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import errno
import gc
import logging
import os
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from analyses.cli.directory import FAILURE_LOG, MANIFEST, held
from analyses.cli.terminal import Screen, Terminal, logged
from interp import __version__
from interp.engines import ENGINES
from interp.errors import InterpError
from interp.language import LANGUAGES

if TYPE_CHECKING:
    from analyses.cli.study import Study
    from interp.model import HookedTransformer

SHELLS = ("bash", "zsh", "fish")
CONTINUED = 12
"""How many tokens ``interp explain --continue`` generates unless another number is given."""
DTYPES = ("float32", "float64", "bfloat16", "float16")

EXAMPLES = """\
examples:
  interp run color-noun                      the bundled model, results and page under reports/color-noun
  interp run color-noun-es                   the founding sentence, in Spanish
  interp explain "Me encanta el color negro y tengo un gato" --from negro --to gato
  interp run ioi --model gpt2                a model from the hub, if it can be reached or is cached
  interp run color-noun --model file.gguf    a GGUF file; a Hugging Face directory works too
  interp new agreement                       a first question of your own, in agreement.yaml
  interp check agreement.yaml --model gpt2   what is wrong with it, or its prompts as the model reads them
  interp run agreement.yaml --out my-run     ask it
  interp sweep-studies color-noun ioi --model mini --model gpt2 --out all    and a page that compares them
"""

EXPLAINED = """\
What of the word A reaches the word B? The sentence is compared with itself with other words in A's place, of as many
tokens. The answer comes in words, with the heads that write it at B and what changes in what the model predicts.
"""

FIGURES = "also write each figure to DIR/figures, as SVG and PNG"

log = logging.getLogger("interp.cli")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    if argv is None:
        _end_promptly()
    try:
        arguments = _parsed(argv)
    except SystemExit as stop:  # --help, --version, or a usage error already explained in one line
        return int(stop.code or 0)
    arguments.command_line = shlex.join(["interp", *(sys.argv[1:] if argv is None else argv)])
    terminal = Terminal()
    with logged() as lines, terminal.alone():
        try:
            with _stopped_by_signals():
                arguments.handler(arguments, terminal)
                terminal.out.flush()
            return 0
        except InterpError as error:
            terminal.say(str(error))
            return 2
        except KeyboardInterrupt as stop:
            terminal.say(_what_is_kept(arguments, str(stop)))
            return 130
        except BrokenPipeError:  # whoever read our output has left: say no more
            _abandon_output()
            return 0
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                _abandon_output()
                terminal.say(
                    f"{error.filename or 'The output'} cannot be written ({error.strerror}). Free space there."
                )
                return 2
            return _failed(error, lines, arguments, terminal)
        except Exception as error:
            return _failed(error, lines, arguments, terminal)


def _end_promptly() -> None:
    """Have the process end with its answer.

    At exit Python looks through every object there is for cycles, several times. After a model that takes seconds of a
    processor, on a busy machine a minute. The system takes the memory back at once.
    """
    atexit.register(gc.freeze)


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP interrupt as Ctrl-C does; one that is ignored (nohup) stays ignored."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    watched = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in watched}
    try:
        for number, handler in before.items():
            if handler is signal.SIG_DFL:
                signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            if handler is signal.SIG_DFL:
                signal.signal(number, handler)


def _abandon_output() -> None:
    """Let what is still to be printed, and Python's own flush at exit, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _failed(error: Exception, lines: Iterable[str], arguments: argparse.Namespace, terminal: Terminal) -> int:
    log.exception("failed")
    where = _keep_log("\n".join(lines) + "\n", arguments)
    terminal.say(f"failed ({type(error).__name__}: {error}). {where}")
    return 1


# --- arguments ---


class _Parser(argparse.ArgumentParser):
    """Explains a usage error in one line."""

    def error(self, message: str) -> NoReturn:
        Terminal().say(str(InterpError(f"{message}. See '{self.prog} --help'.")))
        raise SystemExit(2)


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; an option that the subcommand does not know is explained by the subcommand's own help."""
    arguments, unknown = _parser().parse_known_args(argv)
    if unknown:
        said = f"unrecognized arguments: {' '.join(unknown)}. See 'interp {arguments.command} --help'."
        Terminal().say(str(InterpError(said)))
        raise SystemExit(2)
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="interp",
        description="How does context reach a word? Runs studies of a language model, writes reports.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"interp {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")

    run = commands.add_parser("run", help="run a study and write its report", description="Run a study.")
    run.add_argument("study", metavar="STUDY", help="a bundled study (see 'interp studies') or a .yaml file")
    run.add_argument("--model", metavar="M", help="mini, a hub name, a model directory or a .gguf file")
    run.add_argument("--out", metavar="DIR", type=Path, help="where to write (default: reports/STUDY[-MODEL])")
    run.add_argument("--device", metavar="D", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    run.add_argument("--dtype", choices=DTYPES, default="float32", help="default: float32")
    run.add_argument("--n", metavar="N", type=int, help="pairs per rung (default: the study's)")
    run.add_argument("--lang", choices=LANGUAGES, help="of the page and the answer (default: the study's, else en)")
    run.add_argument("--seed", metavar="S", type=int, help="seed (default: the study's)")
    run.add_argument("--figures", action="store_true", help=FIGURES)
    run.add_argument(
        "--dry-run", action="store_true", help="say what would be computed and what it takes; write nothing"
    )
    run.add_argument("--quiet", action="store_true", help="no progress, only the result")
    _add_engine(run)
    run.set_defaults(handler=_run)

    several = commands.add_parser(
        "sweep-studies",
        help="several studies of several models, and a page that compares them",
        description="Run every study with every model, each in a directory of its own. One that fails is told at the "
        "end. The same command again goes on where it stopped.",
    )
    several.add_argument("studies", metavar="STUDY", nargs="+", help="bundled studies or .yaml files")
    several.add_argument(
        "--model", metavar="M", action="append", default=[], help="as for 'interp run'; again for a further model"
    )
    several.add_argument("--out", metavar="DIR", type=Path, required=True, help="the directory of all runs")
    several.add_argument("--device", metavar="D", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    several.add_argument("--dtype", choices=DTYPES, default="float32", help="default: float32")
    several.add_argument("--n", metavar="N", type=int, help="pairs per rung (default: each study's)")
    several.add_argument("--lang", choices=LANGUAGES, help="of the pages and the answers (default: each study's)")
    several.add_argument("--seed", metavar="S", type=int, help="seed (default: each study's)")
    several.add_argument("--quiet", action="store_true", help="no progress, only the results")
    _add_engine(several)
    several.set_defaults(handler=_sweep_studies)

    explain = commands.add_parser(
        "explain", help="one sentence, two words: what of the first reaches the second", description=EXPLAINED
    )
    explain.add_argument("text", metavar="TEXT", nargs="?", help="the sentence")
    explain.add_argument(
        "--chat", metavar="FILE", type=Path, help='a JSON file of messages: [{"role": "user", "content": "..."}]'
    )
    explain.add_argument(
        "--from",
        metavar="A",
        dest="source",
        required=True,
        help="a word of it; gato@2 is the second; ? asks which words matter",
    )
    explain.add_argument(
        "--to",
        metavar="B",
        dest="target",
        required=True,
        help="a later word of it; with --from ? also >, the next token, or >3",
    )
    explain.add_argument(
        "--seconds", metavar="S", type=float, default=60.0,
        help="about how long it may take after loading; what was left is said (default: 60; 0: no limit)",
    )  # fmt: skip
    explain.add_argument("--instead", metavar="W,W", help="what to put in A's place (default: chosen, and shown)")
    explain.add_argument("--n", metavar="N", type=int, default=8, help="at most so many other words (default: 8)")
    explain.add_argument(
        "--continue", metavar="N", dest="continuation", type=int, nargs="?", const=CONTINUED,
        help=f"generate N tokens after the sentence and after each counterfactual (default N: {CONTINUED})",
    )  # fmt: skip
    explain.add_argument("--dry-run", action="store_true", help="say what would be patched and what it takes")
    explain.add_argument("--lang", choices=LANGUAGES, help="of the answer (default: the sentence's)")
    explain.add_argument("--model", metavar="M", default="mini", help="as for 'interp run' (default: mini)")
    explain.add_argument("--device", metavar="D", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    explain.add_argument("--dtype", choices=DTYPES, default="float32", help="default: float32")
    explain.add_argument("--out", metavar="DIR", type=Path, help="keep the results there (default: only print)")
    explain.add_argument("--figures", action="store_true", help=FIGURES)
    explain.add_argument("--quiet", action="store_true", help="no progress, only the result")
    explain.set_defaults(handler=_explain)

    report = commands.add_parser("report", help="write the report of a finished run again")
    report.add_argument("directory", metavar="DIR", type=Path)
    report.add_argument("--lang", choices=LANGUAGES, help="of the page (default: the study's, else en)")
    report.add_argument("--plain", action="store_true", help="without the CircuitsVis script: 1.3 MB less")
    report.add_argument("--figures", action="store_true", help=FIGURES)
    report.set_defaults(handler=_report)

    compare = commands.add_parser("compare", help="runs beside each other: what agrees, what differs, and how sure")
    compare.add_argument("directories", metavar="DIR", type=Path, nargs="+", help="what 'run' or 'explain --out' wrote")
    compare.add_argument("--lang", choices=LANGUAGES, help="of the words (default: es where every run is, else en)")
    compare.add_argument("--out", metavar="DIR", type=Path, help="also write compare.html and compare.json there")
    compare.set_defaults(handler=_compare)

    new = commands.add_parser("new", help="write a first question of your own: NAME.yaml, which runs as it is")
    new.add_argument("name", metavar="NAME")
    new.set_defaults(handler=_new)

    check = commands.add_parser("check", help="look a study or task file over, without a model's weights")
    check.add_argument("file", metavar="FILE", help="a .yaml file of a study or a task")
    check.add_argument("--model", metavar="M", help="show the pairs as its tokenizer reads them, and what is dropped")
    check.set_defaults(handler=_check)

    show = commands.add_parser("show", help="a task's rungs and roles, and one prompt of each with its roles marked")
    show.add_argument("task", metavar="TASK", help="a bundled task (see 'interp tasks') or a .yaml file")
    show.add_argument("--model", metavar="M", help="show the prompts as its tokenizer reads them")
    show.set_defaults(handler=_show)

    runs = commands.add_parser("runs", help="what is on the disk: runs, explanations, captures, stores of sweeps")
    runs.add_argument(
        "directory", metavar="DIR", type=Path, nargs="?", default=Path("reports"), help="default: reports"
    )
    runs.set_defaults(handler=_runs)

    remove = commands.add_parser("gc", help="remove what is named, and only what this tool wrote there; it asks first")
    remove.add_argument("directories", metavar="DIR", type=Path, nargs="+", help="as 'interp runs' lists them")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    remove.set_defaults(handler=_remove)

    schema = commands.add_parser("schema", help="the JSON schema of a study or task file, for an editor")
    schema.add_argument("what", choices=("study", "task"))
    schema.set_defaults(handler=_schema)

    completion = commands.add_parser("completion", help="the script that completes this command in a shell")
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(handler=_completion)

    for name, text, handler in (
        ("models", "what --model takes, and what is cached here", _models),
        ("studies", "the bundled studies", _studies),
        ("tasks", "the bundled tasks", _tasks),
    ):
        commands.add_parser(name, help=text).set_defaults(handler=handler)

    doctor = commands.add_parser("doctor", help="device, versions, and whether the bundled model works here")
    doctor.add_argument("--quick", action="store_true", help="do not load the model")
    doctor.set_defaults(handler=_doctor)
    return parser


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine", choices=ENGINES, default="local", help="who computes: this process, or workers of Ray"
    )
    parser.add_argument("--workers", metavar="N", type=int, help="workers of Ray (default: one per GPU or four cores)")
    parser.add_argument("--address", metavar="A", help="of a Ray cluster (default: a Ray of this machine's own)")


# --- commands ---


def _run(arguments: argparse.Namespace, terminal: Terminal) -> None:
    from analyses.cli import execution, scaling
    from analyses.cli import study as studies

    engine = scaling.Engine(arguments.engine, arguments.workers, arguments.address)
    engine.check()
    written = studies.load(arguments.study)
    study = studies.with_overrides(written, model=arguments.model, n=arguments.n, seed=arguments.seed)
    if arguments.out is None:
        arguments.out = execution.default_place(study, written, arguments.dtype)
    if arguments.dry_run:
        _rehearse(study, arguments, terminal)
        return
    out, watcher = arguments.out, Screen(terminal, quiet=arguments.quiet)
    with engine.of(execution.real_tools(arguments.lang, figures=arguments.figures), watcher) as tools:
        outcome = execution.execute(
            study,
            out,
            tools=tools,
            watcher=watcher,
            command=arguments.command_line,
            device=arguments.device,
            dtype=arguments.dtype,
            every_prompt=arguments.n is not None,
            language=arguments.lang,
        )
    terminal.line(outcome.answer)
    terminal.line(f"Report: {outcome.report}")
    if arguments.figures:
        _say_figures(out, terminal)


def _sweep_studies(arguments: argparse.Namespace, terminal: Terminal) -> None:
    from analyses.cli import execution, scaling

    engine = scaling.Engine(arguments.engine, arguments.workers, arguments.address)
    engine.check()
    runs = scaling.every_run(arguments.studies, arguments.model, arguments.out, n=arguments.n, seed=arguments.seed)
    watcher = Screen(terminal, quiet=arguments.quiet)

    def tell(one: scaling.Ended) -> None:
        said = f"failed: {one.error}" if one.outcome is None else one.outcome.answer
        terminal.line(f"{one.run.out}: {said}")

    with engine.of(execution.real_tools(arguments.lang), watcher) as tools:
        found = scaling.run_all(
            runs,
            tools=tools,
            watcher=watcher,
            command=arguments.command_line,
            ended=tell,
            device=arguments.device,
            dtype=arguments.dtype,
            every_prompt=arguments.n is not None,
            language=arguments.lang,
        )
    page, reason = scaling.compared(found, arguments.out, arguments.lang)
    terminal.line(f"No comparison: {reason}." if page is None else f"Comparison: {page}")
    scaling.refuse_failures(found)


def _rehearse(study: Study, arguments: argparse.Namespace, terminal: Terminal) -> None:
    from analyses.cli import execution, rehearsal

    for line in rehearsal.rehearsed(
        study,
        arguments.out,
        tools=execution.real_tools(arguments.lang),
        watcher=Screen(terminal, quiet=arguments.quiet),
        device=arguments.device,
        dtype=arguments.dtype,
        every_prompt=arguments.n is not None,
        workers=arguments.workers,
    ):
        terminal.line(line)


def _explain(arguments: argparse.Namespace, terminal: Terminal) -> None:
    from analyses.cli import sentence

    if arguments.figures and arguments.out is None:
        raise InterpError("--figures writes into the directory of the results: name one with --out DIR.")
    for line in sentence.explained(arguments, Screen(terminal, quiet=arguments.quiet)):
        terminal.line(line)
    if arguments.figures:
        _say_figures(arguments.out, terminal)


def _report(arguments: argparse.Namespace, terminal: Terminal) -> None:
    from interp import report

    where = arguments.directory
    if not where.is_dir():
        raise InterpError(f"{where} is not a directory; give the directory that 'interp run' wrote.")
    with held(where, arguments.command_line):
        page = report.render(where, interactive=not arguments.plain, language=arguments.lang, figures=arguments.figures)
        terminal.line(f"Report: {page}")
        if arguments.figures:
            _say_figures(where, terminal)


def _say_figures(directory: Path, terminal: Terminal) -> None:
    """Where a page's figures were written, and that there are no PNGs where that is so."""
    from interp.report import figures

    terminal.line(f"Figures: {directory / figures.FOLDER}")
    if not figures.can_draw_text():
        terminal.line(figures.NO_FONT)


def _studies(arguments: argparse.Namespace, terminal: Terminal) -> None:
    from analyses.cli import study as studies
    from interp import tasks

    found = [studies.load(name) for name in studies.names()]
    rows = [(study.name, tasks.load(study.task).name, str(study.n), study.title) for study in found]
    terminal.table(("study", "task", "pairs", "title"), rows)


def _tasks(arguments: argparse.Namespace, terminal: Terminal) -> None:
    from interp import tasks

    found = [tasks.load(name) for name in tasks.names()]
    rows = [(task.name, task.language, ", ".join(rung.name for rung in task.rungs), task.title) for task in found]
    terminal.table(("task", "language", "rungs", "title"), rows)


def _new(arguments: argparse.Namespace, terminal: Terminal) -> None:
    from analyses.cli import questions

    path = questions.write_new(arguments.name)
    name = shlex.quote(str(path))
    terminal.line(f"Wrote {path}. Next: interp check {name}, then interp run {name}.")


def _check(arguments: argparse.Namespace, terminal: Terminal) -> None:
    from analyses.cli import questions

    for line in questions.look_over(arguments.file, arguments.model):
        terminal.line(line)


def _show(arguments: argparse.Namespace, terminal: Terminal) -> None:
    from analyses.cli import questions

    for line in questions.show(arguments.task, arguments.model):
        terminal.line(line)


def _runs(arguments: argparse.Namespace, terminal: Terminal) -> None:
    from analyses.cli import housekeeping

    found = list(housekeeping.found(arguments.directory))
    if not found:
        terminal.line(f"Nothing of this tool's is in {arguments.directory}.")
        return
    terminal.table(housekeeping.HEADER, [housekeeping.row(one) for one in found])
    terminal.line()
    terminal.line(f"{len(found)} in all, {housekeeping.in_bytes(sum(one.size for one in found))}.")


def _remove(arguments: argparse.Namespace, terminal: Terminal) -> None:
    from analyses.cli import housekeeping

    found = housekeeping.removable(arguments.directories)
    terminal.table(housekeeping.HEADER, [housekeeping.row(one) for one in found])
    n, size = sum(len(one.files) for one in found), housekeeping.in_bytes(sum(one.size for one in found))
    if not arguments.yes and not terminal.agreed(f"Remove these {n} files ({size})?"):
        terminal.line("Nothing was removed.")
        return
    for one in found:
        terminal.line(housekeeping.remove(one, arguments.command_line))


def _schema(arguments: argparse.Namespace, terminal: Terminal) -> None:
    from analyses.cli import schema

    terminal.line(schema.text(arguments.what))


def _completion(arguments: argparse.Namespace, terminal: Terminal) -> None:
    from analyses.cli import completion

    terminal.line(completion.script(_parser(), arguments.shell))


def _models(arguments: argparse.Namespace, terminal: Terminal) -> None:
    rows = [
        ("mini", "bundled: a small bilingual GPT-2, a model organism"),
        ("DIR", "a Hugging Face directory: config.json and *.safetensors"),
        ("FILE.gguf", "a GGUF file, weights and tokenizer in one"),
        ("NAME", "a hub name such as gpt2, if the hub can be reached or the model is cached"),
    ]
    terminal.table(("--model", "what it is"), rows)
    cached = _cached_models()
    terminal.line()
    terminal.line("Cached here: " + (", ".join(cached) if cached else "no hub model."))


def _cached_models() -> list[str]:
    """Hub models with readable weights in the local cache, without asking the hub or importing its client."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    return sorted(
        folder.name.removeprefix("models--").replace("--", "/")
        for folder in cache.glob("models--*")
        if next(folder.glob("snapshots/*/*.safetensors"), None) or next(folder.glob("snapshots/*/*.gguf"), None)
    )


def _doctor(arguments: argparse.Namespace, terminal: Terminal) -> None:
    import torch

    from analyses.cli import manifest as manifests
    from interp.model import HookedTransformer, resolve_device

    rows = list(manifests.versions().items())
    rows += [(key.replace("_", " "), str(value)) for key, value in manifests.machine().items()]
    rows.append(("device", str(resolve_device("auto"))))
    if torch.cuda.is_available():
        rows.append(("gpu", torch.cuda.get_device_name()))
    rows.append(("cached models", ", ".join(_cached_models()) or "none"))
    terminal.table(("what", "value"), rows)
    if not arguments.quick:
        model = HookedTransformer.from_pretrained("mini")
        terminal.line(f"mini loads and passes its self-check: {model!r}")
        for name, value in model.checks.items():
            terminal.line(f"  {name}: {value:.3g}")
        terminal.line(
            f"Numerics are '{model.numerics}' by default: weights are folded, and the ablation 'zero' of a head leaves "
            "what the biases of its values write. 'zero_raw' is zero as in the raw model."
        )
        terminal.line(f"Matrix products, as measured here with {torch.get_num_threads()} threads:")
        for shape, choice in _products(model).items():
            terminal.line(f"  {shape}: {choice}")


def _products(model: HookedTransformer) -> dict[str, str]:
    """How the products of a model are made here, and those of one as large as GPT-2 small."""
    import torch

    from interp.model.arithmetic import TANH_GELU
    from interp.model.products import choose

    choices = {} if model.blocks is None else model.blocks.measured().choices()
    found = {f"{model.name}, {shape}": str(choice) for shape, choice in choices.items()}
    for name, d_in, d_out, activation in (
        ("q, k, v, o", 768, 768, None), ("mlp_in", 768, 3072, TANH_GELU), ("mlp_out", 3072, 768, None),
    ):  # fmt: skip
        choice = choose(torch.ones(d_in, d_out), bias=True, activation=activation)
        found[f"GPT-2 small, {d_in} x {d_out} ({name})"] = str(choice)
    return found


def _compare(arguments: argparse.Namespace, terminal: Terminal) -> None:
    from interp.report.comparison import compare

    found = compare(*arguments.directories, language=arguments.lang)
    for line in found.lines():
        terminal.line(line)
    if arguments.out is not None:
        terminal.line(f"Page: {found.save(arguments.out)}")


def _keep_log(text: str, arguments: argparse.Namespace) -> str:
    """Write the log beside the run's results if there are any, else among the temporary files; say where it is."""
    from interp import _files

    out: Path | None = getattr(arguments, "out", None)
    content = text.encode("utf-8", "backslashreplace")
    with contextlib.suppress(OSError):
        if out is not None and (out / MANIFEST).is_file():
            _files.write(out / FAILURE_LOG, content)
            return f"The log with the traceback is {out / FAILURE_LOG}."
    with contextlib.suppress(OSError):
        handle, name = tempfile.mkstemp(prefix="interp-", suffix=".log")
        with open(handle, "wb") as file:
            file.write(content)
        return f"The log with the traceback is {name}."
    return "Its log cannot be written anywhere."


def _what_is_kept(arguments: argparse.Namespace, by: str) -> str:
    out = getattr(arguments, "out", None)
    done = sorted(path.stem for path in (out / "results").glob("*.nc")) if out else []
    interrupted = f"interrupted by {by}" if by else "interrupted"
    if not done:
        return f"{interrupted}; nothing was kept. Run the same command to start again."
    if arguments.command == "explain":
        return f"{interrupted}; the answer so far is kept in {out}."
    return f"{interrupted}; {', '.join(done)} kept in {out}. Run the same command again to resume."
