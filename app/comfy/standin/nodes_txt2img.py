"""The nodes of the stock text-to-image graph. They take the same inputs and draw coloured noise: no model is read."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from PIL import Image

from app.comfy.standin.node_types import (
    MAX_RESOLUTION,
    ImageBatch,
    Input,
    JsonObject,
    Node,
    Preview,
    Produced,
    Workbench,
    demand_memory,
)

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


class CheckpointLoaderSimple(Node):
    """A checkpoint by its file name; the file has to exist and is not read."""

    class_type = "CheckpointLoaderSimple"
    category = "loaders"
    display_name = "Load Checkpoint"
    description = "Loads a diffusion model checkpoint, diffusion models are used to denoise latents."
    required = {  # noqa: RUF012
        "ckpt_name": Input(
            lambda folders: folders.model_files("checkpoints"),
            {"tooltip": "The name of the checkpoint (model) to load."},
        )
    }
    returns = ("MODEL", "CLIP", "VAE")
    output_tooltips = (
        "The model used for denoising latents.",
        "The CLIP model used for encoding text prompts.",
        "The VAE model used for encoding and decoding images to and from latent space.",
    )

    def run(self, bench: Workbench, given: JsonObject) -> Produced:  # noqa: ARG002
        """Hand on the name in place of a model."""
        return Produced((given["ckpt_name"],) * 3)


class CLIPTextEncode(Node):
    """A text as conditioning."""

    class_type = "CLIPTextEncode"
    category = "conditioning"
    display_name = "CLIP Text Encode (Prompt)"
    description = (
        "Encodes a text prompt using a CLIP model into an embedding that can be used to guide the diffusion model "
        "towards generating specific images."
    )
    required = {  # noqa: RUF012
        "text": Input("STRING", {"multiline": True, "dynamicPrompts": True, "tooltip": "The text to be encoded."}),
        "clip": Input("CLIP", {"tooltip": "The CLIP model used for encoding the text."}),
    }
    returns = ("CONDITIONING",)
    output_tooltips = ("A conditioning containing the embedded text used to guide the diffusion model.",)

    def run(self, bench: Workbench, given: JsonObject) -> Produced:  # noqa: ARG002
        """Hand on the text."""
        return Produced((given["text"],))


class EmptyLatentImage(Node):
    """A place for pictures to come."""

    class_type = "EmptyLatentImage"
    category = "latent"
    display_name = "Empty Latent Image"
    description = "Create a new batch of empty latent images to be denoised via sampling."
    required = {  # noqa: RUF012
        "width": Input(
            "INT",
            {
                "default": 512,
                "min": 16,
                "max": MAX_RESOLUTION,
                "step": 8,
                "tooltip": "The width of the latent images in pixels.",
            },
        ),
        "height": Input(
            "INT",
            {
                "default": 512,
                "min": 16,
                "max": MAX_RESOLUTION,
                "step": 8,
                "tooltip": "The height of the latent images in pixels.",
            },
        ),
        "batch_size": Input(
            "INT", {"default": 1, "min": 1, "max": 4096, "tooltip": "The number of latent images in the batch."}
        ),
    }
    returns = ("LATENT",)
    output_tooltips = ("The empty latent image batch.",)

    def run(self, bench: Workbench, given: JsonObject) -> Produced:  # noqa: ARG002
        """Remember the size, in whole multiples of 8 as a latent has it."""
        return Produced((Latent(given["width"] // 8 * 8, given["height"] // 8 * 8, given["batch_size"]),))


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
            preview = Preview("JPEG", _noise(f"{seed}/{step}"), _PREVIEW_PIXELS) if bench.previews else None
            bench.progress(step + 1, given["steps"], preview)
        return Produced((Latent(latent.width, latent.height, latent.batch, seed),))


class VAEDecode(Node):
    """Coloured noise in place of pictures, the same for the same seed."""

    class_type = "VAEDecode"
    category = "latent"
    display_name = "VAE Decode"
    description = "Decodes latent images back into pixel space images."
    required = {  # noqa: RUF012
        "samples": Input("LATENT", {"tooltip": "The latent to be decoded."}),
        "vae": Input("VAE", {"tooltip": "The VAE model used for decoding the latent."}),
    }
    returns = ("IMAGE",)
    output_tooltips = ("The decoded image.",)

    def run(self, bench: Workbench, given: JsonObject) -> Produced:
        """Draw the noise of each picture of the batch."""
        latent: Latent = given["samples"]
        demand_memory(bench, latent.batch, latent.width, latent.height)
        frames = []
        for index in range(latent.batch):
            grain = _noise(f"{latent.seed}/{index}")
            frames.append(grain.resize((latent.width, latent.height), Image.Resampling.BICUBIC))
        return Produced((ImageBatch(tuple(frames)),))


def _noise(seed: str) -> Image.Image:
    """Return a small picture of coloured noise, always the same for the same seed."""
    return Image.frombytes("RGB", (_GRAIN, _GRAIN), random.Random(seed).randbytes(_GRAIN * _GRAIN * 3))
