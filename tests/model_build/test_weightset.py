"""Which of a file's sets of weights is served, what is told of the others, and what is never passed over in silence."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from model_build.chosen import find
from model_build.errors import FileError
from model_build.network import import_torchvision, resnet18
from tests.model_build.checkpoints import State, made, under

RAW, OTHER = made(3, seed=1), made(3, seed=2)
COUNTERS = {"total_ops": torch.zeros(1), "layer1.0.total_params": torch.zeros(1), "n_averaged": torch.tensor(4)}


def averaged() -> State:
    """The state dict of torch's own AveragedModel over OTHER."""
    network = resnet18(3)
    network.load_state_dict(OTHER)
    return dict(AveragedModel(network).state_dict())


def chosen(data: dict[Any, Any], key: str | None = None) -> tuple[str, bool, list[str]]:
    """The name of what is taken, whether that is OTHER, and the notices."""
    notices: list[str] = []
    found = find(data, key, notices.append)
    expected = OTHER if torch.equal(found.tensors["fc.weight"], OTHER["fc.weight"]) else RAW
    assert all(torch.equal(value, expected[name]) for name, value in found.tensors.items() if name in expected)
    return found.name, expected is OTHER, notices


def refused(data: dict[Any, Any], key: str | None = None) -> str:
    with pytest.raises(FileError) as raised:
        find(data, key, print)
    return str(raised.value)


class TestOneSet:
    """Wherever it is, and whatever wrapped it."""

    @pytest.mark.parametrize(
        ("prefix", "name"),
        [
            ("", "."),
            ("module.", "."),
            ("_orig_mod.", "."),
            ("module._orig_mod.", "."),
            ("model.", "model"),
            ("model._orig_mod.module.", "model"),
            ("net.backbone.", "net.backbone"),
            ("_forward_module.model.", "model"),
        ],
    )
    def test_prefixes(self, prefix: str, name: str) -> None:
        assert chosen(under(prefix, RAW)) == (name, False, [])
        path = "" if name == "." else f".{name}"
        assert chosen({"state_dict": under(prefix, RAW)}) == (f"state_dict{path}", False, [])

    @pytest.mark.parametrize("wrapped", ["layer1._orig_mod.", "layer3.module.", "layer2.0._checkpoint_wrapped_module."])
    def test_wrappers_within(self, wrapped: str) -> None:
        plain = ".".join(part for part in wrapped.split(".") if part in ("layer1", "layer2", "layer3", "0")) + "."
        data = {key.replace(plain, wrapped, 1): value for key, value in RAW.items()}
        assert set(data) != set(RAW)
        assert chosen(data) == (".", False, [])

    @pytest.mark.parametrize("path", [["model"], ["net"], ["checkpoint", "model"], ["a", "b", "c", "d"]])
    def test_dicts(self, path: list[str]) -> None:
        data: dict[str, Any] = RAW
        for name in reversed(path):
            data = {name: data, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(64, 3, 7, 7)}}}}
        assert chosen(data) == (".".join(path), False, [])

    def test_counters_are_no_weights(self) -> None:
        assert chosen(RAW | COUNTERS) == (".", False, [])
        assert chosen(under("model.", RAW | COUNTERS)) == ("model", False, [])

    def test_other_things_beside(self) -> None:
        data = {"args": argparse.Namespace(), "best": torch.tensor(0.9), 7: "seven", "rng_state": torch.zeros(5, 5)}
        assert chosen({"model": RAW, "rng": {"cpu": torch.zeros(5, 5)}} | data)[:2] == ("model", False)
        assert chosen(RAW | {"epoch": 3, "classes": ["a", "b", "c"]}) == (".", False, [])

    def test_a_dict_that_holds_itself(self) -> None:
        data: dict[str, Any] = {"model": RAW}
        data["self"] = data
        assert chosen(data) == ("model", False, [])


class TestSeveralSets:
    """The average is preferred; what was left is told; else the user is asked."""

    @pytest.mark.parametrize(
        ("data", "name"),
        [
            ({"state_dict": RAW, "state_dict_ema": OTHER}, "state_dict_ema"),
            ({"state_dict_ema": OTHER, "state_dict": RAW}, "state_dict_ema"),
            ({"model": RAW, "model_ema": OTHER}, "model_ema"),
            ({"model": RAW, "ema": OTHER}, "ema"),
            ({"model": RAW, "ema": {"decay": 0.99, "shadow": OTHER}}, "ema.shadow"),
            ({"model": RAW, "ema_state_dict": OTHER}, "ema_state_dict"),
            ({"model": RAW, "modelEMA": OTHER}, "modelEMA"),
            ({"net": RAW, "EMANet": OTHER}, "EMANet"),
            ({"net": RAW, "net_avg": OTHER}, "net_avg"),
            ({"net": RAW, "averaged": averaged()}, "averaged"),
            ({"net": RAW, "second": averaged()}, "second"),
            ({"state_dict": under("model.", RAW) | under("ema_model.module.", OTHER)}, "state_dict.ema_model"),
            (RAW | under("ema.", OTHER), "ema"),
            (under("net.", RAW) | under("second.", averaged()), "second"),
            ({"state_dict": RAW, "callbacks": {"EMA": {"ema_state_dict": OTHER}}}, "callbacks.EMA.ema_state_dict"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_the_average(self, data: dict[str, Any], name: str) -> None:
        found, average, notices = chosen(data)
        assert (found, average) == (name, True)
        (notice,) = notices
        assert notice.startswith(f"holds several sets of weights: {name!r}, an average, is taken, '")
        assert notice.endswith("' left; --key NAME takes another")

    @pytest.mark.parametrize("name", ["schema", "gamma", "remainder", "swap", "avgpool"])
    def test_names_that_only_look_alike(self, name: str) -> None:
        assert f"'model', {name!r}, and nothing says which" in refused({"model": RAW, name: OTHER})

    @pytest.mark.parametrize("names", [("last", "best"), ("student", "teacher"), ("ema_a", "ema_b")])
    def test_the_user_is_asked(self, names: tuple[str, str]) -> None:
        data = {names[0]: RAW, names[1]: OTHER}
        both = f"{names[0]!r}, {names[1]!r}"
        said = f"holds several sets of weights, {both}, and nothing says which to serve: add --key NAME"
        assert refused(data) == said
        flat = under(f"{names[0]}.", RAW) | under(f"{names[1]}.", OTHER)
        assert refused(flat) == said
        for taken, left in (names, names[::-1]):
            found, other, notices = chosen(data, taken)
            assert (found, other) == (taken, taken == names[1])
            (notice,) = notices
            assert f"{taken!r}" in notice.partition(" taken")[0]
            assert f"{left!r} left" in notice

    def test_equal_ones_need_no_choice(self) -> None:
        assert chosen({"a": RAW, "b": {key: value.clone() for key, value in RAW.items()}}) == ("a", False, [])

    def test_a_key_may_name_a_part_of_the_way(self) -> None:
        data = {"state_dict": under("model.", RAW) | under("ema.", OTHER), "other": made(3, seed=5)}
        assert chosen(data, "state_dict")[0] == "state_dict.ema"
        assert chosen(data, "state_dict.model")[0] == "state_dict.model"

    def test_a_key_of_the_file_s_own_dict(self) -> None:
        assert chosen(RAW | under("ema.", OTHER), ".")[:2] == (".", False)

    @pytest.mark.parametrize("key", ["nothing", "state", "optimizer", ""])
    def test_a_key_that_is_none(self, key: str) -> None:
        data = {"state_dict": RAW, "state_dict_ema": OTHER, "optimizer": {}}
        said = f"has no set of weights --key {key!r}; it has 'state_dict', 'state_dict_ema'"
        assert refused(data, key) == said
        assert refused(RAW, key) == f"has no set of weights --key {key!r}; it has '.' (its own keys)"

    def test_a_key_of_another_network(self) -> None:
        import_torchvision()
        from torchvision.models import resnet34

        data = {"student": RAW, "teacher": dict(resnet34(num_classes=3).state_dict())}
        assert chosen(data) == (
            "student",
            False,
            ["holds several sets of weights: 'student' is taken, 'teacher' left; --key NAME takes another"],
        )
        assert refused(data, "teacher").startswith(
            "is no ResNet18 (under 'teacher'), but a ResNet34: its stages have 3, 4"
        )

    @pytest.mark.parametrize(
        ("average", "said"),
        [
            ({"shadow": {key: RAW[key] for key, _ in resnet18(3).named_parameters()}}, "but not with all keys"),
            ({"shadow_params": [torch.zeros(3)]}, "but as tensors without keys"),
            ({"fc.weight": RAW["fc.weight"]}, "but not with the keys of a ResNet18"),
        ],
    )
    def test_an_average_that_can_not_be_served_is_told(self, average: dict[str, Any], said: str) -> None:
        name, other, notices = chosen({"model": RAW, "ema": average})
        assert (name, other) == ("model", False)
        assert said in notices[-1]
        assert "what looks like an average, 'ema" in notices[-1]

    def test_an_average_that_a_callback_keeps_is_told(self) -> None:
        data = {"state_dict": RAW, "callbacks": {"EMA": {"decay": 0.99, "ema_weights": [torch.zeros(3)]}}}
        _, _, notices = chosen(data)
        told = "has what looks like an average, 'callbacks.EMA.ema_weights', but as tensors without keys; it is left"
        assert notices == [told]


class TestLeftovers:
    """What may belong to the network is refused, unless --key says which part is wanted."""

    @pytest.mark.parametrize(
        ("data", "name", "left"),
        [
            (under("0.", RAW) | {"1.weight": torch.zeros(5, 3)}, "0", "'1.weight' (5, 3)"),
            (under("net.", RAW) | {"normalize.mean": torch.zeros(1, 3, 1, 1)}, "net", "'normalize.mean' (1, 3, 1, 1)"),
            ({"backbone": RAW, "head": {"weight": torch.zeros(5, 3)}}, "backbone", "'head' (1 tensors)"),
        ],
    )
    def test_layers_beside(self, data: dict[str, Any], name: str, left: str) -> None:
        assert refused(data) == (
            f"holds, beside a ResNet18 in {name!r}, {left}, which may be part of the network; "
            f"--key {name} takes the ResNet18 without it"
        )
        assert chosen(data, name) == (name, False, [f"holds, beside the weights, {left}, which is left"])

    def test_keys_within_are_refused_even_so(self) -> None:
        data = under("net.", RAW | {"layer1.2.conv1.weight": torch.zeros(64, 64, 3, 3)})
        for key in (None, "net"):
            assert "a ResNet of another depth" in refused(data, key)
        assert refused(RAW | {"temperature": torch.ones(1)}, ".") == "is no ResNet18: it has 'temperature' (1,) besides"

    @pytest.mark.parametrize("data", [RAW, under("net.", RAW)], ids=["top", "prefix"])
    def test_a_loss_s_weights_of_classes_are_told(self, data: State) -> None:
        _, _, notices = chosen(data | {"criterion.weight": torch.ones(3)})
        assert notices == ["holds, beside the weights, 'criterion.weight' (3,), which is left"]
        # As of ArcFace: without it the network answers no classes.
        assert "criterion.weight" in refused(data | {"criterion.weight": torch.ones(3, 512)})

    def test_tables_that_are_no_layers_are_told(self) -> None:
        _, _, notices = chosen({"model": RAW, "confusion": {"matrix": torch.zeros(3, 3)}})
        assert notices == ["holds, beside the weights, 'confusion' (1 tensors), which is left"]
