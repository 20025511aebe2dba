"""What `Run` guarantees inside one process: ownership, accumulation, errors, averages, logs, checkpoints."""

import json
import signal
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from toy import ToyData, one_update, toy_run

from hf_genzoo.training import checkpoint
from hf_genzoo.training.nonfinite import LossWatch
from hf_genzoo.training.processes import seed_step


def snapshot(net: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def equal(before: list[torch.Tensor], net: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(before, net.parameters(), strict=True))


# 1: update ----------------------------------------------------------------------------------------------------------


def test_update_moves_its_own_network_only(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    a, b = snapshot(run.nets["a"]), snapshot(run.nets["b"])
    for batch in run.update("a"):
        assert all(p.requires_grad for p in run.nets["a"].parameters())
        assert not any(p.requires_grad for p in run.nets["b"].parameters())
        run.backward((run.nets["a"](batch["points"]) * run.nets["b"](batch["points"])).mean())
    assert not equal(a, run.nets["a"])
    assert equal(b, run.nets["b"])
    assert all(p.requires_grad for net in run.nets.values() for p in net.parameters())
    assert all(p.grad is None for net in run.nets.values() for p in net.parameters())


def test_a_permanently_frozen_parameter_stays_frozen(tmp_path: Path) -> None:
    net = nn.Linear(2, 1)
    net.bias.requires_grad_(False)
    run = toy_run(tmp_path, {"a": net})
    one_update(run)
    assert not net.bias.requires_grad


def test_accumulation_and_batch_size_give_the_same_step(tmp_path: Path) -> None:
    results = []
    for batch, micro in ((8, 1), (4, 2), (2, 4)):
        run = toy_run(tmp_path / str(micro), train_batch_size=batch, gradient_accumulation_steps=micro)
        one_update(run)
        one_update(run, "b")
        results.append(snapshot(run.nets["a"]) + snapshot(run.nets["b"]))
    for other in results[1:]:
        for x, y in zip(results[0], other, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-7)


def test_two_optimisers_do_not_share_a_counter(tmp_path: Path) -> None:
    run = toy_run(tmp_path, gradient_accumulation_steps=3)
    counts = {"a": 0, "b": 0}
    for name in ("a", "b", "b", "a"):
        optimizer = run._optimizers[name].optimizer
        optimizer.register_step_post_hook(lambda *_, name=name: counts.__setitem__(name, counts[name] + 1))
        one_update(run, name)
    assert counts == {"a": 1 + 2, "b": 1 + 2}  # the hook was registered twice: 1 call, then 2


def test_schedule_steps_once_an_optimiser_step(tmp_path: Path) -> None:
    run = toy_run(
        tmp_path, lr_scheduler="linear", lr_warmup_steps=2, gradient_accumulation_steps=4, max_train_steps=10
    )
    rates = []
    for _ in range(10):
        rates.append(run._schedules["a"].get_last_lr()[0])
        one_update(run)
    expected = [0.0, 0.05] + [0.1 * (10 - n) / 8 for n in range(2, 10)]
    assert rates == pytest.approx(expected)


def test_clipping_bounds_the_gradient_norm(tmp_path: Path) -> None:
    run = toy_run(tmp_path, max_grad_norm=0.01, learning_rate=1.0)
    before = snapshot(run.nets["a"])
    one_update(run)
    moved = torch.cat([(x - y).flatten() for x, y in zip(before, run.nets["a"].parameters(), strict=True)])
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)


def test_update_takes_kept_batches(tmp_path: Path) -> None:
    run = toy_run(tmp_path, gradient_accumulation_steps=2)
    kept = [{"points": torch.ones(2, 2)}, {"points": torch.zeros(2, 2)}]
    seen = []
    for batch in run.update("a", kept):
        seen.append(batch)
        run.backward(run.nets["a"](batch["points"]).mean())
    assert seen == kept
    assert run.images_seen == 0
    with pytest.raises(RuntimeError, match=r"got 1 batches, needs 2"):
        for batch in run.update("b", kept[:1]):
            run.backward(run.nets["b"](batch["points"]).mean())


# 2: errors ----------------------------------------------------------------------------------------------------------


def test_missing_backward_is_named(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    with pytest.raises(RuntimeError, match=r"wgan_gp: step 1, optimiser 'a': a micro-batch needs one run.backward"):
        for _ in run.update("a"):
            pass


def test_second_backward_is_an_error(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    with pytest.raises(RuntimeError, match="add the losses instead"):
        for batch in run.update("a"):
            run.backward(run.nets["a"](batch["points"]).mean())
            run.backward(run.nets["a"](batch["points"]).mean())


def test_unfinished_update_is_an_error(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    for batch in run.update("a"):
        run.backward(run.nets["a"](batch["points"]).mean())
        break
    with pytest.raises(RuntimeError, match="optimiser 'a': the update was left unfinished"):
        one_update(run, "b")


def test_backward_outside_update_and_empty_step(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    with pytest.raises(RuntimeError, match="outside"):
        run.backward(torch.zeros((), requires_grad=True))
    with pytest.raises(RuntimeError, match=r"step 1: the step made no run\.update"):
        for _ in run.steps():
            pass


def test_vector_loss_and_unknown_names(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    with pytest.raises(ValueError, match=r"shape \(2, 1\)"):
        for batch in run.update("a"):
            run.backward(run.nets["a"](batch["points"]))
    with pytest.raises(KeyError, match="no optimiser 'c'"):
        next(run.update("c"))


def test_shared_parameter_is_refused(tmp_path: Path) -> None:
    net = nn.Linear(2, 1)
    with pytest.raises(ValueError, match="belongs to optimisers 'a' and 'b'"):
        toy_run(tmp_path, {"a": net, "b": net})


def poisoned_update(run, bad_term: str) -> None:
    for batch in run.update("a"):
        loss = run.nets["a"](batch["points"]).mean()
        nan = torch.tensor(float("nan"))
        run.backward(loss * nan if bad_term == "loss" else loss, **({} if bad_term == "loss" else {bad_term: nan}))


@pytest.mark.parametrize("term", ["loss", "penalty"])
def test_nan_names_family_step_optimiser_and_term(tmp_path: Path, term: str) -> None:
    run = toy_run(tmp_path)
    before = snapshot(run.nets["a"])
    with pytest.raises(FloatingPointError, match=rf"wgan_gp: step 1, optimiser 'a': {term} is not finite"):
        poisoned_update(run, term)
    assert equal(before, run.nets["a"])


def test_nan_steps_are_skipped_counted_and_logged(tmp_path: Path) -> None:
    run = toy_run(tmp_path, max_nonfinite_steps=2, logging_steps=1, max_train_steps=4)
    for step in run.steps():
        before = snapshot(run.nets["a"])
        poisoned_update(run, "loss") if step in (1, 3) else one_update(run)
        assert equal(before, run.nets["a"]) == (step in (1, 3))
    assert run._watch.skipped == 2
    entries = [json.loads(line) for line in (tmp_path / "logs/metrics.jsonl").read_text().splitlines()]
    assert [entry.get("nonfinite_steps") for entry in entries] == [1, 1, 2, 2]
    with pytest.raises(FloatingPointError, match="allowed: 2"):
        poisoned_update(run, "loss")


def test_nonfinite_gradient_of_a_finite_loss(tmp_path: Path) -> None:
    run = toy_run(tmp_path, max_grad_norm=1.0)
    with pytest.raises(FloatingPointError, match="gradient norm is not finite"):
        for batch in run.update("a"):
            zero = run.nets["a"](batch["points"]).mean() * 0
            run.backward(torch.sqrt(zero))


def test_lazy_check_stops_before_a_log_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy_run(tmp_path, logging_steps=2, max_train_steps=4)
    monkeypatch.setattr(LossWatch, "judges_each_step", False)  # as on a GPU
    done = 0
    with pytest.raises(FloatingPointError, match="a loss since the last log entry was not finite"):
        for _ in run.steps():
            poisoned_update(run, "loss")
            done += 1
    assert done == 2
    assert not checkpoint.list_checkpoints(tmp_path)


# 4: noise -----------------------------------------------------------------------------------------------------------


def test_noise_is_a_function_of_seed_rank_and_step() -> None:
    def draw(*key: int) -> torch.Tensor:
        seed_step(*key)
        return torch.randn(4)

    assert torch.equal(draw(1, 0, 5), draw(1, 0, 5))
    others = [draw(1, 0, 6), draw(1, 1, 5), draw(2, 0, 5), draw(5, 0, 1)]
    assert not any(torch.equal(draw(1, 0, 5), other) for other in others)


# 5: checkpoints -----------------------------------------------------------------------------------------------------


def train_toy(folder: Path, **args) -> None:
    run = toy_run(folder, **args)
    for _ in run.steps():
        one_update(run)
        one_update(run, "b")


def test_torn_checkpoints_are_passed_over_by_name(tmp_path: Path) -> None:
    train_toy(tmp_path, checkpointing_steps=1, max_train_steps=4)
    (tmp_path / "checkpoint-4" / "run_0.pt").unlink()
    weights = tmp_path / "checkpoint-3" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    flipped = tmp_path / "checkpoint-2" / "model.safetensors"
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"\x55")
    with pytest.warns(UserWarning, match="checkpoint") as caught:
        run = toy_run(tmp_path, resume_from_checkpoint="latest")
    said = " ".join(str(w.message) for w in caught)
    assert "checkpoint-4 is torn: run_0.pt is missing" in said
    assert "checkpoint-3 is torn: model.safetensors has" in said
    assert "checkpoint-2 is damaged" in said
    assert run.step == 1


def test_a_foreign_or_missing_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    foreign = tmp_path / "checkpoint-9"
    foreign.mkdir()
    (foreign / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="checkpoint-9 is no complete checkpoint of hf_genzoo"):
        toy_run(tmp_path, resume_from_checkpoint=str(foreign))
    with pytest.raises(ValueError, match="there is no such folder"):
        toy_run(tmp_path, resume_from_checkpoint=str(tmp_path / "nothing"))
    with pytest.warns(UserWarning, match="checkpoint-9"), pytest.raises(ValueError, match="no usable checkpoint"):
        toy_run(tmp_path, resume_from_checkpoint="latest")


def test_changed_arguments_are_listed(tmp_path: Path) -> None:
    train_toy(tmp_path, max_train_steps=2)
    with pytest.raises(ValueError, match=r"(?s)different run.*learning_rate: 0.1 -> 0.2.*seed: 0 -> 3"):
        toy_run(tmp_path, resume_from_checkpoint="latest", learning_rate=0.2, seed=3)
    other = ToyData()
    other.fingerprint = "toy-2"
    with pytest.raises(ValueError, match="data fingerprint: 'toy-1' -> 'toy-2'"):
        toy_run(tmp_path, resume_from_checkpoint="latest", data=other, max_train_steps=2)


def test_what_does_not_change_learning_may_change(tmp_path: Path) -> None:
    train_toy(tmp_path, max_train_steps=2)
    run = toy_run(tmp_path, resume_from_checkpoint="latest", max_train_steps=3, logging_steps=1, checkpointing_steps=7)
    assert run.step == 2


def test_horizon_of_a_decaying_schedule_may_not_change(tmp_path: Path) -> None:
    train_toy(tmp_path, max_train_steps=2, lr_scheduler="cosine")
    with pytest.raises(ValueError, match="max_train_steps: 2 -> 3"):
        toy_run(tmp_path, resume_from_checkpoint="latest", max_train_steps=3, lr_scheduler="cosine")


def test_pruning_keeps_the_newest(tmp_path: Path) -> None:
    train_toy(tmp_path, checkpointing_steps=1, max_train_steps=5, checkpoints_total_limit=2)
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path)] == ["checkpoint-5", "checkpoint-4"]


def test_pruning_waits_for_the_new_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy_run(tmp_path, checkpointing_steps=1, checkpoints_total_limit=1)
    seen = []
    publish = checkpoint.publish
    monkeypatch.setattr(
        checkpoint,
        "publish",
        lambda *a: (seen.append([p.name for p in checkpoint.list_checkpoints(tmp_path)]), publish(*a))[1],
    )
    for _ in run.steps():
        one_update(run)
    assert seen == [[], ["checkpoint-1"], ["checkpoint-2"], ["checkpoint-3"]]


def test_an_earlier_run_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    train_toy(tmp_path, max_train_steps=2)
    with pytest.raises(ValueError, match="--overwrite_output_dir"):
        toy_run(tmp_path)
    run = toy_run(tmp_path, overwrite_output_dir=True)
    assert run.step == 0
    assert not checkpoint.list_checkpoints(tmp_path)


def test_latest_without_a_checkpoint_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy_run(tmp_path, resume_from_checkpoint="latest").step == 0
    assert "starting at step 1" in capsys.readouterr().out


# 6: averages --------------------------------------------------------------------------------------------------------


class WithBatchNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(2, 3), nn.BatchNorm1d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear(x)).square() + self.linear(x)


def test_averaged_lends_ema_weights_and_gives_back_bit_for_bit(tmp_path: Path) -> None:
    net = WithBatchNorm()
    run = toy_run(tmp_path, {"a": net}, ema_inv_gamma=1.0, ema_power=0.75, ema_max_decay=0.999)
    shadow = snapshot(net)
    for n in range(5):
        one_update(run)
        decay = 0.0 if n == 0 else 1 - (1 + n) ** -0.75
        shadow = [decay * s + (1 - decay) * p for s, p in zip(shadow, snapshot(net), strict=True)]
    training, buffers = snapshot(net), [b.clone() for b in net.buffers()]
    with run.averaged() as nets:
        assert not nets["a"].training
        for expected, p in zip(shadow, nets["a"].parameters(), strict=True):
            torch.testing.assert_close(p.detach(), expected, rtol=1e-5, atol=1e-7)
        assert not equal(training, nets["a"])
        assert all(torch.equal(x, y) for x, y in zip(buffers, nets["a"].buffers(), strict=True))  # live, not initial
        assert buffers[0].abs().sum() > 0
    assert net.training
    assert equal(training, net)


def test_training_weights_return_after_an_error(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    for _ in range(3):
        one_update(run)
    before = snapshot(run.nets["a"])
    with pytest.raises(ZeroDivisionError), run.averaged():
        raise ZeroDivisionError
    assert equal(before, run.nets["a"])


def test_without_ema_the_training_weights_are_lent(tmp_path: Path) -> None:
    run = toy_run(tmp_path, use_ema=False)
    one_update(run)
    before = snapshot(run.nets["a"])
    with run.averaged() as nets:
        assert equal(before, nets["a"])


# 7, 8: logs, bar, signals -------------------------------------------------------------------------------------------


def test_logs_are_means_over_the_interval(tmp_path: Path) -> None:
    run = toy_run(tmp_path, logging_steps=2, gradient_accumulation_steps=2, max_train_steps=4)
    values = iter(range(8))
    for _ in run.steps():
        for batch in run.update("a"):
            run.backward(run.nets["a"](batch["points"]).mean() * 0 + next(values))
    entries = [json.loads(line) for line in (tmp_path / "logs/metrics.jsonl").read_text().splitlines()]
    assert [entry["a/loss"] for entry in entries] == [1.5, 5.5]
    assert [entry["step"] for entry in entries] == [2, 4]


def test_losses_leave_the_device_once_a_log_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy_run(tmp_path, logging_steps=5, max_train_steps=10, data=ToyData())
    monkeypatch.setattr(LossWatch, "judges_each_step", False)  # as on a GPU
    monkeypatch.setattr(run, "_save_checkpoint", lambda: None)
    monkeypatch.setattr(run, "_finish", lambda: None)
    reads = []
    for name in ("item", "tolist", "__bool__", "__float__"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, *a, o=original, n=name: (reads.append(n), o(self, *a))[1])
    for _ in run.steps():
        one_update(run)
    assert reads.count("tolist") == 2  # one log entry each 5 steps
    assert reads.count("__bool__") == 2  # ... and its check that all losses were finite
    assert reads.count("item") + reads.count("__float__") == 0


def test_signal_stops_after_the_step_with_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = toy_run(tmp_path, max_train_steps=9)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        for step in run.steps():
            one_update(run)
            if step == 3:
                signal.raise_signal(signal.SIGTERM)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path)] == ["checkpoint-3"]
    assert "--resume_from_checkpoint latest" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is handler
    assert toy_run(tmp_path, max_train_steps=9, resume_from_checkpoint="latest").step == 3


def test_one_bar_with_loss_speed_and_time_left(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train_toy(tmp_path, logging_steps=1)
    err = capfd.readouterr().err
    last = err.replace("\r", "\n").strip().splitlines()[-1]
    assert "4/4" in last
    assert "a/loss" in last
    assert "images/s" in last
    assert "<" in last  # tqdm's elapsed<remaining


def test_streams_need_a_length(tmp_path: Path) -> None:
    endless = ToyData()
    endless.num_samples = None
    with pytest.raises(ValueError, match="set --max_train_steps"):
        toy_run(tmp_path, data=endless, max_train_steps=None)


def test_tensorboard_gets_scalars(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train_toy(tmp_path, report_to="tensorboard", logging_steps=1)
    assert list((tmp_path / "logs").rglob("events.out.tfevents.*"))


def test_unknown_tracker_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--report_to nosuch"):
        toy_run(tmp_path, report_to="nosuch")
