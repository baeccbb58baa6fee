"""The checkpoint that training starts from: another one's weights, or fresh ones, for the classes to be learnt."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import torch

from classifier.architectures import DEFAULT
from classifier.labels import Labels
from model_build import layout, weights
from model_build.labels import read_labels
from model_build.network import build
from model_build.options import choice
from model_build.preprocessing import Given, resolve
from model_build.structure import CHOICES
from model_build.weights import UNTOLD, Checkpoint, WeightsError

if TYPE_CHECKING:
    from model_build.train import Options

INITS = ("auto", "imagenet", "demo")
# Class folders that a message names at most.
NAMED = 20


def initial(options: Options, classes: tuple[str, ...], teacher: Checkpoint | None = None) -> Checkpoint:
    """What training starts from; its head, labels and sizes are already those of the checkpoint to come.

    ``classes``: the names of the class folders. ``teacher``: whose preprocessing a network from scratch has. Raises
    UsageError, WeightsError or LabelsError.
    """
    architecture, given = options.architecture or DEFAULT, Given(size=options.size)
    checkpoint = Checkpoint(
        _fresh(options.seed, architecture, len(classes)),
        *("none", Labels(classes)),
        digest="",
        architecture=architecture,
        **resolve(given, _preprocessing(teacher) if teacher else Given()),
    )
    if options.init not in (*INITS, "none") and not Path(options.init).is_file():
        raise click.UsageError(f"--init {options.init!r} is not a file, nor one of {', '.join(INITS)}, none")
    if options.key is not None and options.init in (*INITS, "none"):
        raise click.UsageError(f"--key {options.key!r} chooses in a file of weights; --init {options.init} is none")
    told = choice(options.pool, options.stride, options.activation)
    if told != UNTOLD and options.init in (*INITS, "none"):
        raise click.UsageError(f"{CHOICES} tell what a file of weights doesn't, and --init {options.init} is none")
    if options.init != "none":
        try:
            name = "imagenet" if options.init == "auto" else options.init
            checkpoint = weights.find(
                name, key=options.key, given=given, choice=told, architecture=options.architecture
            )
        except WeightsError as error:
            if options.init != "auto":
                raise
            click.echo(f"{error}\n\nTraining starts from scratch instead, which takes many more images.", err=True)
    if options.frozen and checkpoint.origin == "none":
        raise click.UsageError(f"--frozen needs weights to start from, and --init {options.init} gave none")
    labels = checkpoint.labels if checkpoint.labels.en == classes else Labels(classes)
    if options.labels:
        labels = read_labels(options.labels, len(classes), known=classes, notice=click.echo)
    if len(labels.en) != len(classes):
        raise click.UsageError(
            f"--labels {str(options.labels)!r} holds {len(labels.en)} names, but DIR has {len(classes)} class folders: "
            f"{', '.join(classes[:NAMED])}{', …' if len(classes) > NAMED else ''}"
        )
    prepared, size = checkpoint.preprocessing, checkpoint.preprocessing.size
    resize, upsample = options.resize or prepared.resize, options.upsample or checkpoint.upsample
    for option, value in (("--resize", resize), ("--upsample", upsample)):
        if value is not None and value < size:
            raise click.UsageError(f"{option} {value} is smaller than the network's input of {size} pixels (--size)")
    same = checkpoint.labels.en in (labels.en, classes)
    state, structure = dict(checkpoint.state), checkpoint.structure
    if not same:
        if options.activation is not None:
            raise click.UsageError(
                f"--head-activation {options.activation} tells of a head that is not kept: the classes in DIR are not "
                f"those of --init {options.init}"
            )
        head = layout.head(checkpoint.architecture)
        # Of a head of several layers none is left.
        body = {name: value for name, value in state.items() if not name.startswith(f"{head.split('.')[0]}.")}
        fresh = _fresh(options.seed, checkpoint.architecture, len(classes))
        state = body | {name: value for name, value in fresh.items() if name.startswith(f"{head}.")}
        structure = replace(structure, head=())
    upsample = None if upsample == size else upsample
    prepared = replace(prepared, resize=resize)
    return replace(
        checkpoint, state=state, structure=structure, labels=labels, preprocessing=prepared, upsample=upsample
    )


def _preprocessing(checkpoint: Checkpoint) -> Given:
    """What ``checkpoint`` tells of its preprocessing; its weights see red, green, blue whatever their file's did."""
    view = asdict(checkpoint.preprocessing)
    return Given(**view, upsample=checkpoint.upsample, mean=checkpoint.mean, std=checkpoint.std)


def _fresh(seed: int, architecture: str, classes: int) -> dict[str, torch.Tensor]:
    """The state dict of an untrained network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state: dict[str, torch.Tensor] = build(architecture, classes).state_dict()
    return state
