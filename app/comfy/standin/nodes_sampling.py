"""KSampler: steps of progress, with pictures to look at if wanted; and the noise that stands for its results.

Used by catalogue, nodes_txt2img; may import its folder alone.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from PIL import Image

from app.comfy.standin.node_types import Input, JsonObject, Node, Preview, Produced, Workbench

_SAMPLERS = [
    *("euler", "euler_cfg_pp", "euler_ancestral", "euler_ancestral_cfg_pp", "heun", "heunpp2", "dpm_2"),
    *("dpm_2_ancestral", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2s_ancestral", "dpmpp_2s_ancestral_cfg_pp"),
    *("dpmpp_sde", "dpmpp_sde_gpu", "dpmpp_2m", "dpmpp_2m_cfg_pp", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu"),
    *("dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "ddpm", "lcm", "ipndm"),
    *("ipndm_v", "deis", "res_multistep", "res_multistep_cfg_pp", "res_multistep_ancestral"),
    *("res_multistep_ancestral_cfg_pp", "gradient_estimation", "gradient_estimation_cfg_pp", "er_sde", "seeds_2"),
    *("seeds_3", "sa_solver", "sa_solver_pece", "ddim", "uni_pc", "uni_pc_bh2"),
]
_SCHEDULERS = [
    *("simple", "sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal", "linear_quadratic"),
    "kl_optimal",
]
_GRAIN = 64
_PREVIEW_PIXELS = 512


@dataclass(frozen=True)
class Latent:
    """Value of a LATENT slot: the size of pictures to come and the seed of their noise."""

    width: int
    height: int
    batch: int
    seed: str = "empty"


class KSampler(Node):
    """So many steps of progress; the result depends on every input and on nothing else."""

    class_type = "KSampler"
    category = "sampling"
    description = "Uses the provided model, positive and negative conditioning to denoise the latent image."
    required = {  # noqa: RUF012
        "model": Input("MODEL", {"tooltip": "The model used for denoising the input latent."}),
        "seed": Input(
            "INT",
            {
                "default": 0,
                "min": 0,
                "max": 0xFFFFFFFFFFFFFFFF,
                "control_after_generate": True,
                "tooltip": "The random seed used for creating the noise.",
            },
        ),
        "steps": Input(
            "INT",
            {
                "default": 20,
                "min": 1,
                "max": 10000,
                "tooltip": "The number of steps used in the denoising process.",
            },
        ),
        "cfg": Input(
            "FLOAT",
            {
                "default": 8.0,
                "min": 0.0,
                "max": 100.0,
                "step": 0.1,
                "round": 0.01,
                "tooltip": "The Classifier-Free Guidance scale balances creativity and adherence to the prompt. "
                "Higher values result in images more closely matching the prompt however too high values will "
                "negatively impact quality.",
            },
        ),
        "sampler_name": Input(
            _SAMPLERS,
            {
                "tooltip": "The algorithm used when sampling, this can affect the quality, speed, and style of the "
                "generated output."
            },
        ),
        "scheduler": Input(
            _SCHEDULERS, {"tooltip": "The scheduler controls how noise is gradually removed to form the image."}
        ),
        "positive": Input(
            "CONDITIONING",
            {"tooltip": "The conditioning describing the attributes you want to include in the image."},
        ),
        "negative": Input(
            "CONDITIONING",
            {"tooltip": "The conditioning describing the attributes you want to exclude from the image."},
        ),
        "latent_image": Input("LATENT", {"tooltip": "The latent image to denoise."}),
        "denoise": Input(
            "FLOAT",
            {
                "default": 1.0,
                "min": 0.0,
                "max": 1.0,
                "step": 0.01,
                "tooltip": "The amount of denoising applied, lower values will maintain the structure of the initial "
                "image allowing for image to image sampling.",
            },
        ),
    }
    returns = ("LATENT",)
    output_tooltips = ("The denoised latent.",)

    def run(self, bench: Workbench, given: JsonObject) -> Produced:
        """Report the steps and derive a seed from the inputs."""
        latent: Latent = given["latent_image"]
        seed = hashlib.sha256(repr(sorted(given.items())).encode()).hexdigest()
        for step in range(given["steps"]):
            bench.raise_if_interrupted()
            preview = Preview("JPEG", noise(f"{seed}/{step}"), _PREVIEW_PIXELS) if bench.previews else None
            bench.progress(step + 1, given["steps"], preview)
        return Produced((Latent(latent.width, latent.height, latent.batch, seed),))


def noise(seed: str) -> Image.Image:
    """Return a small picture of coloured noise, always the same for the same seed."""
    return Image.frombytes("RGB", (_GRAIN, _GRAIN), random.Random(seed).randbytes(_GRAIN * _GRAIN * 3))
