"""What the report says about an adapted model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tenfac import adapt, adapter_report, merge, tucker_adapter
from tests.adapters.nets import MoE, images, resnet
from tests.checks import assert_close, assert_equal, assert_says


def test_the_report_counts_what_torch_counts() -> None:
    net = resnet()
    base = sum(p.numel() for p in net.parameters())
    report = adapt(net, "all", rank=2, also_train="bn1")
    assert_equal(report.total, base)
    assert_equal(report.trainable, sum(p.numel() for p in net.parameters() if p.requires_grad))
    for row in report.layers:
        layer = net.get_submodule(row.layer)
        assert_equal(row.parameters, sum(p.numel() for p in layer.tenfac.parameters() if p.requires_grad))
        assert_equal(row.shape, tuple(layer.weight.shape))
        assert_close(row.share, row.parameters / layer.weight.numel())
    assert_equal(adapter_report(net), report)


def test_the_table_has_a_line_for_each_weight_and_what_was_left() -> None:
    net = nn.Sequential(nn.Conv2d(8, 16, 3, groups=2), nn.Linear(64, 1), nn.Linear(64, 64))
    report = adapt(net, "all", rank=2, also_train="0.bias")
    lines = str(report).splitlines()
    assert_says(
        lines[1], "Conv2d", "out 16, in/groups 4, height 3, width 3", "(2, 2, 3, 3)", "76", "13.2%", "auto"
    )
    assert_equal(lines[3], "trained itself: 0.bias")
    assert_says(lines[4], "left as it is: 1: ", "fewer numbers")
    assert_says(lines[5], "acting: default; ", "trainable numbers")
    assert_equal(len(repr(report).splitlines()), 1)
    assert_says(repr(report), "2 weights adapted", "1 parameters trained besides", "1 skipped")
    merge(net)
    assert_says(repr(adapter_report(net)), "merged")
    assert_says(str(adapter_report(net)), "merged into the weights: default")


def test_the_path_is_that_of_the_example() -> None:
    net = nn.Sequential(nn.Conv2d(256, 256, 3), nn.Conv2d(256, 256, 7, groups=256))
    adapt(net, "all-conv", rank=1)
    assert_equal([row.path for row in adapter_report(net).layers], ["auto", "auto"])
    rows = adapter_report(net, inputs=torch.zeros(2, 256, 16, 16)).layers
    assert_equal([row.path for row in rows], ["factored", "fused"])
    assert_equal(net[0]._forward_pre_hooks, {})


def test_weights_that_others_read_are_fused() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    rows = adapt(layer, "all-linear", rank=2).layers
    assert_equal([row.path for row in rows], ["fused"] * 3 + ["auto"] * 3)
    rows = adapter_report(layer, inputs=(torch.zeros(2, 5, 16),)).layers
    assert_equal([row.path for row in rows[:4]], ["fused"] * 4)
    assert "auto" not in [row.path for row in rows]
    assert_equal({row.path for row in adapt(MoE(), ["w1", "heads"], rank=2).layers}, {"fused"})


def test_an_input_that_the_model_does_not_take_leaves_no_hooks() -> None:
    net = resnet()
    adapt(net, "all", rank=2)
    with pytest.raises(RuntimeError):
        adapter_report(net, inputs=torch.zeros(2, 5, 8, 8))
    assert_equal([m for m in net.modules() if m._forward_pre_hooks], [])
    assert_equal(adapter_report(net, inputs=images()).layers[0].layer, "conv1")


def test_a_layer_adapted_alone_has_a_report() -> None:
    row = adapter_report(tucker_adapter(nn.Embedding(50, 16), rank=4)).layers[0]
    assert_equal((row.layer, row.type, row.rank), ("(model)", "Embedding", (4, 4)))
    assert_says(str(adapter_report(tucker_adapter(nn.Embedding(50, 16), rank=4))), "rows 50, width 16")
