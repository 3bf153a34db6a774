"""Adapted models under what people do with torch modules."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tenfac.adapters.build import tucker_adapter
from tenfac.adapters.layer import adapted_layers, merge_layer
from tests.adapters.toys import FACTORED, adapted, effect, input_of, layer_of, oracle, stir, trained
from tests.checks import assert_above, assert_below, assert_equal, assert_relative

PATHS = ("factored", "fused")
KINDS = ("Conv2d k3", "Conv2d circular groups 2", "ConvTranspose2d groups", "Linear", "Embedding")


def plain_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular"),
        nn.ReLU(),
        nn.ModuleDict({"inner": nn.Conv2d(8, 8, 3, groups=2)})["inner"],
        nn.Flatten(),
        nn.Linear(8 * 16, 5),
    )


def net(path: str = "auto") -> nn.Sequential:
    """A small net, every layer with an update that has an effect."""
    model = plain_net()
    for layer in list(model):
        if hasattr(layer, "weight"):
            tucker_adapter(layer, 2, path=path)
    return stir(model)


def batch(n: int = 4) -> torch.Tensor:
    return torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(3))


def merged(model: nn.Module) -> nn.Module:
    for _, layer in list(adapted_layers(model.eval())):
        merge_layer(layer)
    return model


def gradients(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(x).square().mean().backward()
    return {name: p.grad.clone() for name, p in trained(model).items()}


# --- copies and files -------------------------------------------------------------------------------------


def test_copies_give_the_same_output_and_deep_ones_share_nothing() -> None:
    model, x = net(), batch()
    twins = [copy.deepcopy(model), copy.copy(model), pickle.loads(pickle.dumps(model))]  # noqa: S301
    for twin in twins:
        assert_equal([type(layer) for layer in twin], [type(layer) for layer in model])
        assert_equal(twin(x).detach(), model(x).detach())
    want = model(x).detach()
    for deep in (twins[0], twins[2]):
        assert not {id(p) for p in deep.parameters()} & {id(p) for p in model.parameters()}
        stir(deep, seed=5)
        assert_equal(model(x).detach(), want)
        assert_above(effect(deep(x), want), 0.05, "effect")


@pytest.mark.slow
def test_a_saved_model_is_read_in_a_fresh_process(tmp_path: Path) -> None:
    for name, model in (("on", net()), ("merged", merged(net()))):
        torch.save((model, batch(), model(batch()).detach()), tmp_path / f"{name}.pt")
    code = (
        "import sys, torch\n"
        "for path in sys.argv[1:]:\n"
        "    model, x, y = torch.load(path, weights_only=False)\n"
        "    print(type(model[0]).__name__, torch.equal(model(x), y), model[0].tenfac.merged)\n"
    )
    paths = [str(tmp_path / f"{name}.pt") for name in ("on", "merged")]
    run = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, timeout=120)
    assert_equal(run.stdout.split(), ["AdaptedConv2d", "True", "False", "AdaptedConv2d", "True", "True"])


def test_the_state_dict_goes_round_and_holds_the_keys_of_the_base_model() -> None:
    model, other = net(), stir(net(), seed=7)
    state = model.state_dict()
    assert set(plain_net().state_dict()) < set(state)
    assert_equal(str(other.load_state_dict(state)), "<All keys matched successfully>")
    assert_equal(other(batch()).detach(), model(batch()).detach())


def test_a_base_checkpoint_loads_before_and_after_adapting() -> None:
    base = plain_net()
    with torch.no_grad():
        for p in base.parameters():
            p.mul_(1.5)
    for assign in (False, True):
        model = net()
        before = dict(model.named_parameters())
        model.load_state_dict(base.state_dict(), strict=True, assign=assign)
        assert_relative(model(batch()), oracle(model, base)(batch()), 1e-6)
        after = dict(model.named_parameters())
        assert_equal([n for n in before if "tenfac" in n and after[n] is not before[n]], [])
        assert_equal(
            {n: p.requires_grad for n, p in after.items()}, {n: p.requires_grad for n, p in before.items()}
        )
    assert_equal(list(merged(net()).state_dict()), list(base.state_dict()))


def test_part_of_an_adapter_in_a_checkpoint_is_reported_missing() -> None:
    state = net().state_dict()
    key = next(key for key in state if key.endswith("core.tensor"))
    del state[key]
    with pytest.raises(RuntimeError, match=key.replace(".", r"\.")):
        net().load_state_dict(state)
    assert_equal(net().load_state_dict(state, strict=False).missing_keys, [key])
    with pytest.raises(RuntimeError, match="Unexpected key"):
        plain_net().load_state_dict(state)


def test_a_merged_model_refuses_to_be_loaded_over() -> None:
    model = merged(net())
    before = model[0].weight.detach().clone()
    with pytest.raises(RuntimeError, match="unmerge"):
        model.load_state_dict(plain_net().state_dict())
    assert_equal(model[0].weight.detach(), before)


def test_a_full_checkpoint_may_be_assigned() -> None:
    model, other = net(), stir(net(), seed=7)
    other.load_state_dict(model.state_dict(), assign=True)
    assert_equal(other(batch()).detach(), model(batch()).detach())
    assert_equal(sorted(trained(other)), sorted(trained(model)))


def test_a_model_adapted_on_the_meta_device_is_filled_from_a_checkpoint() -> None:
    with torch.device("meta"):
        model = net_on_meta()
    model.to_empty(device="cpu").load_state_dict(net().state_dict())
    assert_equal(model(batch()).detach(), net()(batch()).detach())
    with torch.device("meta"):
        model = net_on_meta()
    assert_equal(tuple(model(torch.empty(4, 3, 6, 6, device="meta")).shape), (4, 5))
    model.load_state_dict(net().state_dict(), assign=True)
    assert_equal(model(batch()).detach(), net()(batch()).detach())


def net_on_meta() -> nn.Sequential:
    model = plain_net()
    for layer in list(model):
        if hasattr(layer, "weight"):
            tucker_adapter(layer, 2)
    return model


# --- training ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", FACTORED)
def test_autocast_gives_the_dtype_of_the_plain_layer_and_its_precision(case: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same' with even")
        for path in PATHS:
            layer, x = adapted(case, path=path), input_of(case)
            with torch.autocast("cpu", torch.bfloat16):
                got, plain = layer(x), layer_of(case)(x)
            assert_equal(got.dtype, plain.dtype)
            assert_relative(got.float(), layer(x), 2e-2, path)
            got.float().sum().backward()
            assert_equal({p.grad.dtype for p in trained(layer).values()}, {torch.float32})


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(reentrant: bool) -> None:
    for path in PATHS:
        model, x = net(path), batch().requires_grad_(True)
        want = gradients(model, x)
        model.zero_grad()
        checkpoint(model, x, use_reentrant=reentrant).square().mean().backward()
        for name, p in trained(model).items():
            assert_relative(p.grad, want[name], 1e-6, name)


def test_one_step_of_an_optimizer_moves_the_updates_only() -> None:
    model, plain = net(), plain_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    gradients(model, batch())
    assert_above(nn.utils.clip_grad_norm_(model.parameters(), 1e-3), 1e-3, "norm of the gradients")
    total = sum(p.grad.square().sum() for p in trained(model).values()).sqrt()
    assert_relative(total, torch.tensor(1e-3), 1e-2)
    optimizer.step()
    for name, p in plain.named_parameters():
        assert_equal(dict(model.named_parameters())[name].detach(), p.detach())


def test_requires_grad_may_be_turned_off_and_on() -> None:
    model, x = net().double(), batch().double()
    want = gradients(model, x)
    model.requires_grad_(False)
    assert not model(x).requires_grad
    model.requires_grad_(True)
    got = gradients(model, x)
    assert_equal(sorted(set(got) - set(want)), sorted(dict(plain_net().named_parameters())))
    want |= gradients(oracle(model, plain_net().double()), x)
    for name, value in want.items():
        assert_relative(got[name], value, 1e-12, name)


def test_averages_of_weights_are_kept_by_a_copy() -> None:
    model = net()
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
    )
    average.update_parameters(model)
    first = {name: p.detach().clone() for name, p in trained(model).items()}
    stir(model, seed=8)
    average.update_parameters(model)
    for name, p in trained(average.module).items():
        assert_relative(p, (first[name] + dict(model.named_parameters())[name]) / 2, 1e-6, name)


def test_parameters_go_to_a_vector_and_back() -> None:
    model, want = net(), net()(batch()).detach()
    vector = nn.utils.parameters_to_vector(model.parameters())
    stir(model, seed=4)
    nn.utils.vector_to_parameters(vector, model.parameters())
    assert_equal(model(batch()).detach(), want)


def test_apply_share_memory_and_hooks_see_the_layers() -> None:
    model, seen, kinds = net(), [], []
    model.apply(lambda module: kinds.append(isinstance(module, (nn.Conv2d, nn.Linear))))
    assert_equal(sum(kinds), 3)
    handles = [
        layer.register_forward_hook(lambda *args: seen.append(tuple(args[2].shape))) for layer in model
    ]
    handles.append(model[0].register_forward_pre_hook(lambda *args: (args[1][0] * 2,)))
    handles.append(model[4].register_full_backward_hook(lambda *args: seen.append(("backward",) * len(args))))
    want = net()(batch() * 2).detach()
    y = model(batch())
    y.sum().backward()
    assert_equal(y.detach(), want)
    assert_equal(len(seen), 6)
    assert all(p.is_shared() for p in model.share_memory().parameters())
    for handle in handles:
        handle.remove()


def test_a_model_changes_its_dtype_adapted_and_merged() -> None:
    x = batch()
    want = net()(x)
    assert_relative(net().double()(x.double()), want, 1e-6)
    assert_relative(merged(net()).double()(x.double()), want, 1e-6)
    assert_relative(net().bfloat16()(x.bfloat16()).float(), want, 3e-2)
    assert_equal({p.dtype for p in net().half().parameters()}, {torch.float16})
    assert_relative(net().half().float()(x), want, 1e-2)


# --- transforms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", KINDS)
def test_vmap_over_inputs_and_over_updates(case: str, path: str) -> None:
    layers = [stir(adapted(case, path=path), seed=seed) for seed in range(3)]
    x = input_of(case)
    assert_relative(torch.vmap(layers[0])(x), layers[0](x), 1e-6)
    states = {name: torch.stack([trained(layer)[name] for layer in layers]) for name in trained(layers[0])}

    def run(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layers[0], state, (x,))

    together = torch.vmap(run, (0, None))(states, x)
    assert_relative(together, torch.stack([layer(x) for layer in layers]), 1e-6)


def test_functional_call_swaps_the_frozen_weight() -> None:
    layer, x = adapted("Linear"), input_of("Linear")
    delta = layer.weight - layer._parameters["weight"]
    got = torch.func.functional_call(layer, {"weight": torch.ones(9, 7)}, (x,))
    assert_relative(got, nn.functional.linear(x, 1 + delta, layer.bias), 1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_forward_mode_and_functional_gradients() -> None:
    for path in PATHS:
        model, x = net(path).double(), batch(1).double()
        y, tangent = torch.func.jvp(model, (x,), (torch.ones_like(x),))
        assert_relative(y, model(x), 1e-12)
        assert_relative(tangent, torch.func.jacrev(model)(x).reshape(5, -1).sum(1)[None], 1e-10)


def compiled(case: str, how: str) -> float:
    """Relative difference of a compiled layer's output and gradients to its own."""
    torch._dynamo.reset()
    layer, x = adapted(case), input_of(case)
    if how == "two":
        stir(tucker_adapter(layer, FACTORED[case][2], name="second"))
    if how == "merged":
        merged(layer)
    else:
        layer.tenfac.path = "auto" if how == "two" else how
    backend = "inductor" if how == "inductor" else "aot_eager"
    layer.tenfac.path = "auto" if how == "inductor" else layer.tenfac.path
    fast = torch.compile(layer, fullgraph=True, backend=backend)
    worst = effect(fast(x), layer(x))
    if how != "merged":
        want = gradients(layer, x)
        fast(x).square().mean().backward()
        grads = {name: p.grad / 2 for name, p in trained(layer).items()}
        worst = max(worst, *[effect(want[name], grads[name]) for name in want])
    return worst


@pytest.mark.slow
def test_a_convolution_with_two_adapters_compiles_in_one_graph() -> None:
    assert_below(compiled("Conv2d k3", "two"), 1e-5, "two")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using padding='same' with even")
@pytest.mark.parametrize("how", ["factored", "fused", "merged", "two"])
@pytest.mark.parametrize("case", FACTORED)
def test_every_geometry_compiles_in_one_graph(case: str, how: str) -> None:
    assert_below(compiled(case, how), 1e-5, how)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", KINDS)
def test_inductor_gives_the_same(case: str) -> None:
    assert_below(compiled(case, "inductor"), 1e-5, case)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", [*PATHS, "auto", "merged"])
def test_a_model_is_exported_with_a_free_batch_and_traced(how: str) -> None:
    model = merged(net()) if how == "merged" else net(how).eval()
    sizes = ({0: torch.export.Dim("n", min=2, max=64)},)
    exported = torch.export.export(model, (batch(),), dynamic_shapes=sizes).module()
    traced = torch.jit.trace(model, (batch(),))
    for n in (2, 9):
        assert_relative(exported(batch(n)), model(batch(n)), 1e-6)
        assert_relative(traced(batch(n)), model(batch(n)), 1e-6)


# --- several processes ------------------------------------------------------------------------------------


def _train(rank: int, port: int, path: str, out: str, sharded: bool) -> None:
    from torch.distributed.fsdp import fully_shard

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    model = net(path)
    if sharded:
        for layer in [*model[::2], model]:
            fully_shard(layer)
    else:
        model = nn.parallel.DistributedDataParallel(model)
    found = gradients(model, batch()[2 * rank : 2 * rank + 2])
    found = {name.removeprefix("module."): g.full_tensor() if sharded else g for name, g in found.items()}
    if rank == 0:
        torch.save(found, out)
    torch.distributed.destroy_process_group()
    os._exit(0)  # without taking DDP apart: its end may wait for a thread of gloo's that waits for the GIL


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("sharded", [False, True], ids=["DDP", "fully_shard"])
def test_gradients_of_two_processes_are_those_of_one(tmp_path: Path, path: str, sharded: bool) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    out = str(tmp_path / "gradients.pt")
    torch.multiprocessing.spawn(_train, args=(port, path, out, sharded), nprocs=2)
    got: dict[str, Any] = torch.load(out)
    want = gradients(net(path), batch())
    assert_equal(sorted(got), sorted(want))
    for name, value in want.items():
        assert_relative(got[name], value, 1e-5, name)
