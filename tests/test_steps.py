"""What schedulers' steps are given beside the network's output."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from hf_genzoo.pipelines._steps import step_options


def test_a_clipped_x_0_leads_where_it_points() -> None:
    """As guidance makes it: x_0 at -5, clipped to -1. eps must be that of -1, or x_t goes the other way."""
    scheduler = DDIMScheduler(clip_sample=True, prediction_type="sample", timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    t, x_t = scheduler.timesteps[4], torch.randn(2, 1, 4, 4, generator=torch.manual_seed(0))
    found = scheduler.step(torch.full_like(x_t, -5.0), t, x_t, **step_options(scheduler, None)).prev_sample
    a_t, a_r = (scheduler.alphas_cumprod[at].sqrt() for at in scheduler.timesteps[4:6])
    s_t, s_r = ((1.0 - a**2).sqrt() for a in (a_t, a_r))
    torch.testing.assert_close(found, -a_r + s_r * (x_t + a_t) / s_t)


def test_a_scheduler_is_given_what_it_takes() -> None:
    generator = torch.Generator()
    assert step_options(DDPMScheduler(), generator) == {"generator": generator}
    assert step_options(DPMSolverMultistepScheduler(), generator) == {"generator": generator}
    assert step_options(DDIMScheduler(), generator, 0.5)["eta"] == 0.5
    with pytest.raises(ValueError, match=r"eta 0\.5 has no meaning for DDPMScheduler"):
        step_options(DDPMScheduler(), generator, 0.5)
