"""Kill, resume, several processes: what `Run` guarantees when things go wrong, on real processes."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jobs
import pytest
import torch
import yaml
from jobs import Job, settings_of
from safetensors.torch import load_file

from hf_genzoo.families import FAMILIES
from hf_genzoo.training import checkpoint

ROOT = Path(__file__).resolve().parent.parent
TIMES = {"seconds"}  # the only facts that may differ between two equal runs


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """Equal bit for bit, through dicts, lists and tensors."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - TIMES:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{index}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def assert_same_run(straight: Path, other: Path, step: int) -> None:
    """Same checkpoint at `step` (weights, EMA, optimisers, schedules, data, open log interval), logs and export."""
    first, second = straight / f"checkpoint-{step}", other / f"checkpoint-{step}"
    names = sorted(json.loads((first / checkpoint.MANIFEST).read_text())["files"])
    assert names == sorted(json.loads((second / checkpoint.MANIFEST).read_text())["files"])
    for name in names:
        if name.endswith(".safetensors"):
            assert_same(load_file(first / name), load_file(second / name), name)
        elif not name.endswith(".pkl"):  # accelerate's generator states: steps reseed, so nothing depends on them
            loaded = [torch.load(folder / name, weights_only=True) for folder in (first, second)]
            assert_same(loaded[0], loaded[1], name)
    assert jobs.losses(straight) == jobs.losses(other)
    for weights in straight.glob("*/diffusion_pytorch_model.safetensors"):
        assert_same(load_file(weights), load_file(other / weights.relative_to(straight)), "exported weights")


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_killed_and_resumed_equals_straight(family: str, tmp_path: Path) -> None:
    steps, random_steps = 9, random.Random(family).sample(range(2, 10), 3)
    changes = {"max_train_steps": steps, "checkpointing_steps": 2, "logging_steps": 3, "lr_scheduler": "cosine"}
    changes |= {"gradient_accumulation_steps": 2}
    straight = settings_of(family, tmp_path / "straight", **changes)
    Job(jobs.train, family, straight, log=tmp_path / "straight").succeed()
    broken = settings_of(family, tmp_path / "broken", **changes, resume_from_checkpoint="latest")
    for kill_at in sorted(random_steps):
        job = Job(jobs.train, family, broken, kill_at, log=tmp_path / f"killed-{kill_at}")
        assert job.wait() == [-signal.SIGKILL], job.output()
        assert not (tmp_path / "broken" / "model_index.json").exists()
    Job(jobs.train, family, broken, log=tmp_path / "last").succeed()
    assert_same_run(tmp_path / "straight", tmp_path / "broken", steps)


def test_two_seeds_differ(tmp_path: Path) -> None:
    for seed in (0, 1):
        Job(
            jobs.train,
            "vae",
            settings_of("vae", tmp_path / str(seed), seed=seed, max_train_steps=2),
            log=tmp_path / "log",
        ).succeed()
    first, second = (load_file(next((tmp_path / str(s) / "vae").glob("*.safetensors"))) for s in (0, 1))
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_two_processes_killed_and_resumed_equal_straight(tmp_path: Path) -> None:
    changes = {"max_train_steps": 5, "checkpointing_steps": 2, "train_batch_size": 2}
    Job(
        jobs.train, "wgan_gp", settings_of("wgan_gp", tmp_path / "a", **changes), log=tmp_path / "a", ranks=2
    ).succeed()
    broken = settings_of("wgan_gp", tmp_path / "b", **changes, resume_from_checkpoint="latest")
    codes = Job(jobs.train, "wgan_gp", broken, 4, log=tmp_path / "killed", ranks=2).wait()
    assert codes == [-signal.SIGKILL] * 2
    Job(jobs.train, "wgan_gp", broken, log=tmp_path / "b", ranks=2).succeed()
    assert_same_run(tmp_path / "a", tmp_path / "b", 5)
    ranks = [torch.load(tmp_path / "a/checkpoint-5" / f"run_{r}.pt", weights_only=True) for r in (0, 1)]
    assert ranks[0]["images_seen"] == ranks[1]["images_seen"] == 5 * (2 + 1) * 4
    with pytest.raises(ValueError, match="num_processes: 2 -> 1"):
        from hf_genzoo.training_scripts import train_wgan_gp

        train_wgan_gp.main(train_wgan_gp.Args(**broken))


@pytest.mark.parametrize("family", ["ddpm", "vae", "beta_vae", "autoencoder", "wgan_gp", "gan", "cgan", "glide"])
def test_gradients_do_not_depend_on_how_the_batch_is_split(family: str, tmp_path: Path) -> None:
    """One process of 8; two micro-batches of 4; two gloo processes of 4: the same gradients to 1e-5."""
    splits = {
        "whole": ({"train_batch_size": 8}, 1),
        "accumulated": ({"train_batch_size": 4, "gradient_accumulation_steps": 2}, 1),
        "two processes": ({"train_batch_size": 4}, 2),
        "both": ({"train_batch_size": 2, "gradient_accumulation_steps": 2}, 2),
    }
    found = {}
    for name, (changes, ranks) in splits.items():
        settings = settings_of(family, tmp_path / name, **changes, learning_rate=1e-12)
        del settings["max_train_steps"]
        path = tmp_path / f"{name}.pt"
        Job(jobs.save_gradients, family, settings, str(path), log=tmp_path / f"{name}.log", ranks=ranks).succeed()
        found[name] = torch.load(path)
        assert found[name]["processes"] == ranks
    assert len(found["whole"]["gradients"]) == (2 if "gan" in family else 1)
    for name in list(splits)[1:]:
        for optimizer, expected in found["whole"]["gradients"].items():
            whole = torch.cat([g.flatten() for g in expected])
            split = torch.cat([g.flatten() for g in found[name]["gradients"][optimizer]])
            assert whole.norm() > 0
            assert ((split - whole).norm() / whole.norm()).item() < 1e-5, (name, optimizer)


def test_schedule_is_the_same_on_two_processes(tmp_path: Path) -> None:
    changes = {"max_train_steps": 6, "lr_scheduler": "linear", "lr_warmup_steps": 3, "logging_steps": 1}
    for ranks in (1, 2):
        settings = settings_of("vae", tmp_path / str(ranks), **changes)
        Job(jobs.train, "vae", settings, log=tmp_path / f"log{ranks}", ranks=ranks).succeed()
    rates = [[entry["lr/vae"] for entry in jobs.losses(tmp_path / str(r))] for r in (1, 2)]
    assert rates[0] == rates[1]


def full_disk(settings: dict[str, Any], limit: int) -> None:
    """Train, and let no file grow beyond `limit` bytes once the first checkpoint is there."""
    from hf_genzoo.training.run import Run

    save = Run._save_checkpoint

    def limited(run: Run) -> None:
        if run.step > 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        save(run)

    Run._save_checkpoint = limited
    jobs.train("vae", settings)


@pytest.mark.parametrize("limit", [5000, 9000])
def test_full_disk_loses_no_earlier_checkpoint(limit: int, tmp_path: Path) -> None:
    changes = {"max_train_steps": 4, "checkpointing_steps": 2, "checkpoints_total_limit": 1, "logging_steps": 100}
    settings = settings_of("vae", tmp_path / "full", **changes, resume_from_checkpoint="latest")
    job = Job(full_disk, settings, limit, log=tmp_path / "full.log")
    assert job.wait() == [1]
    assert "checkpoint-4 could not be written" in job.output()
    assert "--resume_from_checkpoint latest" in job.output()
    assert [p.name for p in (tmp_path / "full").glob("*checkpoint-*")] == ["checkpoint-2"]
    checkpoint.read_manifest(tmp_path / "full" / "checkpoint-2")
    Job(jobs.train, "vae", settings, log=tmp_path / "again.log").succeed()
    Job(jobs.train, "vae", {**settings, "output_dir": str(tmp_path / "straight")}, log=tmp_path / "s.log").succeed()
    assert_same_run(tmp_path / "straight", tmp_path / "full", 4)


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_resume(tmp_path: Path) -> None:
    settings = settings_of("vae", tmp_path / "run", max_train_steps=100000, checkpointing_steps=99999)
    job = Job(jobs.train, "vae", settings, log=tmp_path / "run.log")
    deadline = time.monotonic() + 120
    while not (tmp_path / "run/logs/metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(job.processes[0].pid, signal.SIGINT)
    assert job.wait() == [128 + signal.SIGINT], job.output()
    assert "Run the same command with --resume_from_checkpoint latest" in job.output()
    found = checkpoint.find_latest(tmp_path / "run")
    assert found is not None
    assert found[1]["steps"] > 0


def test_sigterm_stops_two_processes_at_the_same_step(tmp_path: Path) -> None:
    settings = settings_of("vae", tmp_path / "run", max_train_steps=100000, checkpointing_steps=99999)
    job = Job(jobs.train, "vae", settings, log=tmp_path / "run.log", ranks=2)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run/logs/metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(job.processes[1].pid, signal.SIGTERM)  # one of them is enough
    job.wait()
    assert checkpoint.find_latest(tmp_path / "run") is not None, job.output()


@pytest.mark.parametrize("config", ["ddp", "fsdp"])
def test_accelerate_launch_runs_two_processes(config: str, tmp_path: Path) -> None:
    """The shipped configuration, with the precision of a CPU; accelerate turns FSDP into DDP where there is no GPU."""
    settings = yaml.safe_load((ROOT / f"training_scripts/accelerate_configs/{config}.yaml").read_text())
    edited = tmp_path / "config.yaml"
    edited.write_text(yaml.safe_dump({**settings, "mixed_precision": "no"}))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(edited)]
    flags = ["--preset", "tiny", "--max_train_steps", "2", "--output_dir", str(tmp_path / "out"), "--use_cpu"]
    script = str(ROOT / "training_scripts" / "train_vae.py")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, script, *flags], capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads((tmp_path / "out" / "training.json").read_text())
    assert facts["num_processes"] == 2
    assert facts["images_seen"] == 2 * 2 * 4


@pytest.mark.parametrize(
    "path", sorted((ROOT / "training_scripts/accelerate_configs").glob("*.yaml")), ids=lambda p: p.stem
)
def test_accelerate_configs_load(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.num_processes >= 1
    assert config.mixed_precision == ("no" if path.stem == "deepspeed_zero2" else "bf16")


def gather_shards(path: str) -> None:
    """Shard a network with FSDP2 on a CPU mesh and gather it the way an export does."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    from hf_genzoo.training.averages import Averages
    from hf_genzoo.training.processes import full_state_dict

    dist.init_process_group("gloo")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Linear(8, 3))
    whole = {name: value.clone() for name, value in net.state_dict().items()}
    fully_shard(net, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    assert all(isinstance(p, DTensor) for p in net.parameters())
    gathered = full_state_dict(net)
    assert all(torch.equal(gathered[name], value) for name, value in whole.items())
    averages = Averages({"net": net})
    net(torch.ones(2, 6)).sum().backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    moved = full_state_dict(net)
    with averages.swapped_in():  # never updated: still the first weights
        assert all(torch.equal(full_state_dict(net)[name], value) for name, value in whole.items())
    assert all(torch.equal(full_state_dict(net)[name], value) for name, value in moved.items())
    averages.update({"net"})  # the first update takes the weights as they are
    with averages.swapped_in():
        torch.testing.assert_close(full_state_dict(net), moved)
    Path(path).write_text("done")
    dist.destroy_process_group()


def test_sharded_weights_are_gathered_and_averaged(tmp_path: Path) -> None:
    Job(gather_shards, str(tmp_path / "done"), log=tmp_path / "log", ranks=2).succeed()
    assert (tmp_path / "done").read_text() == "done"


def test_a_copied_folder_resumes_elsewhere(tmp_path: Path) -> None:
    changes = {"max_train_steps": 4, "checkpointing_steps": 2}
    Job(jobs.train, "vae", settings_of("vae", tmp_path / "a", **changes), log=tmp_path / "a.log").succeed()
    shutil.copytree(tmp_path / "a" / "checkpoint-2", tmp_path / "moved" / "checkpoint-2")
    settings = settings_of("vae", tmp_path / "moved", **changes, resume_from_checkpoint="latest")
    Job(jobs.train, "vae", settings, log=tmp_path / "b.log").succeed()
    first, second = (load_file(next((tmp_path / n / "vae").glob("*.safetensors"))) for n in ("a", "moved"))
    assert_same(first, second)
