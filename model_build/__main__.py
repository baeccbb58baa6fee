"""``python -m model_build``: weights → export → quantise → gate → register, told as it goes."""

from __future__ import annotations

import importlib
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from classifier.architectures import ARCHITECTURES, DEFAULT
from classifier.runtimes import RUNTIMES
from model_build import options, selection
from model_build.gate import Thresholds

console = Console(stderr=False)
COMMANDS = {
    "compare": "Compare networks on the images in DIR: train each briefly, or take it from a file, and measure what "
    "decides.",
    "train": "Train ResNet18, or another --arch, on the images in DIR: one subfolder a class, or a .zip of such a "
    "directory.",
}


class _Group(click.Group):
    """A group whose subcommands are imported when run: torch takes a second that ``--help`` need not wait."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the subcommands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand called ``cmd_name``."""
        if cmd_name not in COMMANDS:
            return None
        module: Any = importlib.import_module(f"{__package__}.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands in the words of their own help, without importing them."""
        told = [click.Command(name, help=text) for name, text in COMMANDS.items()]
        click.Group(commands=told).format_commands(ctx, formatter)


@click.group(
    cls=_Group,
    invoke_without_command=True,
    context_settings={"max_content_width": 110, "show_default": True, "help_option_names": ["-h", "--help"]},
    epilog="Fine-tune on your own classes first with: python -m model_build train --help",
)
@click.option(
    "--weights",
    default="auto",
    metavar="auto|imagenet|demo|PATH",
    help=(
        "Which weights. imagenet: torchvision's, from the torch hub cache (TORCH_HOME) or downloaded. demo: the "
        "packaged CIFAR-10 checkpoint. auto: imagenet, else demo. PATH: your state dict, as torch.save or safetensors "
        "wrote it, alone or among what a training script keeps; any number of classes."
    ),
)
@click.option(
    "--arch",
    "architecture",
    type=click.Choice(list(ARCHITECTURES)),
    help=f"The network, torchvision's of that name.  [default: the one whose keys PATH has, else {DEFAULT}]",
)
@click.option(
    "--key",
    metavar="NAME",
    help=(
        "Which set of weights of several in PATH, dots between nested names: state_dict, model.ema.  "
        "[default: the average (ema, swa, …), else the only one]"
    ),
)
@click.option(
    "--labels",
    metavar="FILE|imagenet",
    type=options.LabelsFile(path_type=Path, exists=True, dir_okay=False),
    help=(
        "Class names: one a line, CSV or TSV, YAML, or JSON such as class_indices.json, index_to_name.json or "
        '{"en": [...], "zh": [...]}. In class order, unless each has an index. imagenet: the 1,000 of ImageNet, which '
        "torchvision's own weights have without asking."
    ),
)
@click.option(
    "--groups",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help=(
        "Groups of classes, in YAML: 'cat: {en: cat, zh: 猫, classes: [tabby, 282, 283-285]}'. Replies then have the "
        "groups' probabilities too.  [default: packaged ones for ImageNet's labels, else none]"
    ),
)
@options.preprocessing
@options.structure
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    type=click.Choice(list(RUNTIMES)),
    default=tuple(RUNTIMES),
    help="What to export for; repeat for several.",
)
@click.option(
    "--precisions",
    default="auto",
    metavar="auto|LIST",
    help=(
        f"Comma-separated: {selection.LISTED}. auto: fp32 and int8, bf16 where this CPU has it (for ONNX with OpenVINO "
        "alone), fp16 where there is a GPU."
    ),
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, exists=True),
    help=(
        "Directory or .zip of images to calibrate int8 on; of folders train and val, train is taken.  "
        "[default: crops of scikit-image's photographs]"
    ),
)
@click.option(
    "--eval",
    "evaluation",
    type=click.Path(path_type=Path, exists=True),
    help=(
        "Directory or .zip of images for the accuracy gate; folders named after the labels give accuracies too. Of "
        "folders train, val and test, val is taken.  "
        "[default: crops of photographs held out from calibration]"
    ),
)
@click.option(
    "--verify",
    metavar="FILE.py:NAME",
    help=(
        "Your original: Python of yours, which is run. NAME is a torch.nn.Module or a function that returns one, alone "
        "or as (module, transform). All is compared with it on the images of --eval, and a build whose fp32 disagrees "
        "is refused."
    ),
)
@click.option(
    "--min-agreement",
    type=click.FloatRange(0, 1),
    callback=options.finite,
    default=Thresholds.agreement,
    help=("The share of images on which a reduced precision must give fp32's top-1."),
)
@click.option(
    "--max-accuracy-loss",
    type=click.FloatRange(0, 100, min_open=True),
    callback=options.finite,
    default=Thresholds.accuracy_loss,
    help=("The percentage points of top-1 accuracy that a reduced precision must lose less than."),
)
@click.option(
    "--max-difference",
    type=click.FloatRange(0, 1),
    callback=options.finite,
    default=Thresholds.difference,
    help=("The largest difference of a probability between an fp32 artifact and the eager network."),
)
@click.pass_context
def main(
    ctx: click.Context,
    /,
    weights: str,
    architecture: str | None,
    key: str | None,
    labels: Path | None,
    groups: Path | None,
    runtimes: tuple[str, ...],
    precisions: str,
    calibration: Path | None,
    evaluation: Path | None,
    verify: str | None,
    min_agreement: float,
    max_accuracy_loss: float,
    max_difference: float,
    pool: bool | None,
    stride: str | None,
    activation: str | None,
    **preprocessing: Any,
) -> None:
    """Build ResNet18, or another --arch, for serving: export, quantise, check against the original, register.

    \b
    Examples:
      python -m model_build                              ImageNet's weights, else the demo
      python -m model_build --weights my.pth --labels names.txt --eval validation/
      python -m model_build --weights demo --runtime onnx --precisions fp32,int8

    An artifact enters the BentoML model store only if it passes the accuracy gate: fp32 exports must agree with the
    eager network on every image, reduced precisions within the thresholds below. Building the same thing again
    changes nothing. The exit status is 1 if fp32, or a precision named in --precisions, was not registered.
    """
    if ctx.invoked_subcommand is not None:
        for option in ctx.command.params:
            if ctx.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE:
                raise click.UsageError(
                    f"{option.opts[0]} is an option of building, not of "
                    f"{ctx.invoked_subcommand}, whose own follow it: {ctx.command_path} {ctx.invoked_subcommand} --help"
                )
        return
    from model_build.groups import default, grouped
    from model_build.label_text import LabelsError
    from model_build.pipeline import build
    from model_build.preprocessing import line
    from model_build.samples import SamplesError
    from model_build.store import StoreError
    from model_build.verification import VerificationError, load
    from model_build.weights import WeightsError, find, numbered
    from runners.artifacts import ArtifactError

    given = options.given(**preprocessing)
    wanted = selection.pairs(tuple(dict.fromkeys(runtimes)), precisions)
    thresholds = Thresholds(min_agreement, max_accuracy_loss, max_difference)
    try:
        tell = partial(console.print, markup=False, highlight=False)
        choice = options.choice(pool, stride, activation)
        checkpoint = find(
            weights,
            labels=labels,
            key=key,
            given=given,
            choice=choice,
            notice=_notice,
            tell=tell,
            architecture=architecture,
        )
        if checkpoint.classes == 1000 and labels is None and checkpoint.labels == numbered(1000):
            said = "has 1,000 classes and no names for them; if they are ImageNet's, add --labels imagenet"
            tell(f"{checkpoint.origin} {said}")
        groups = groups or default(checkpoint.labels)
        if groups is not None:
            checkpoint = replace(checkpoint, labels=grouped(checkpoint.labels, groups, tell))
        title = "" if checkpoint.architecture == DEFAULT else f" {ARCHITECTURES[checkpoint.architecture]}"
        console.print(
            f"[bold]{escape(checkpoint.origin)}[/]{title} weights {checkpoint.digest[:12]}: "
            f"{checkpoint.classes} classes, {checkpoint.preprocessing.size} px"
            + (f" enlarged to {checkpoint.upsample} in the graph" if checkpoint.upsample else "")
        )
        console.print(line(checkpoint), soft_wrap=True, highlight=False)
        original = load(verify) if verify else None
        failures = build(checkpoint, wanted, calibration, evaluation, thresholds, console, original)
    except (WeightsError, LabelsError, SamplesError, StoreError, ArtifactError, VerificationError) as error:
        raise click.ClickException(str(error)) from None
    for name, reason in failures:
        console.print(f"[red]not registered[/] {name}: {escape(reason)}")
    # A reduced precision that nobody asked for by name may fail its gate: what was registered serves.
    if failures and (precisions != "auto" or any(name.endswith("fp32") for name, _ in failures)):
        sys.exit(1)


def _notice(text: str) -> None:
    console.print(Panel(escape(text), title="ImageNet's weights are not here", border_style="yellow", width=100))


if __name__ == "__main__":
    if shutil.get_terminal_size().columns < 100:
        console.width = 120
    main(prog_name="python -m model_build")
