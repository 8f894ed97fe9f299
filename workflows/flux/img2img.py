"""Image to image with FLUX.1.

The result has the size of the image given. The model, its two text encoders and its autoencoder come from files of
their own, as Black Forest Labs ships them.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Input(BaseModel):
    """What to draw over which image, and how."""

    image: str = Field(min_length=1, description="URL, data URL, base64, or a file of ComfyUI's input folder.")
    prompt: str = Field(description="What the image shows.")
    seed: int | None = Field(default=None, ge=0, lt=2**64, description="Left out: another one for each request.")
    steps: int = Field(default=20, ge=1, le=150, description="Steps of the sampler; 4 for the schnell model.")
    guidance: float = Field(default=3.5, ge=0, le=30, description="How closely the prompt is followed.")
    sampler_name: str = Field(default="euler", json_schema_extra={"choices": "samplers"})
    scheduler: str = Field(default="simple", json_schema_extra={"choices": "schedulers"})
    denoise: float = Field(default=0.8, ge=0, le=1, description="How much of the image is drawn anew; 0 nothing.")
    model: str = Field(default="flux1-dev.safetensors", json_schema_extra={"choices": "models.diffusion_models"})
    weight_dtype: str = Field(
        default="default", pattern="^(default|fp8_e4m3fn|fp8_e4m3fn_fast|fp8_e5m2)$", description="Precision."
    )
    clip_l: str = Field(default="clip_l.safetensors", json_schema_extra={"choices": "models.text_encoders"})
    t5xxl: str = Field(default="t5xxl_fp16.safetensors", json_schema_extra={"choices": "models.text_encoders"})
    vae: str = Field(default="ae.safetensors", json_schema_extra={"choices": "models.vae"})


def generate(input: Input, context: Any) -> dict[str, Any]:  # noqa: A002 - the name of the request's field
    """The graph."""
    return {
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": input.prompt, "clip": ["11", 0]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["31", 0], "vae": ["10", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "image", "images": ["8", 0]}},
        "10": {"class_type": "VAELoader", "inputs": {"vae_name": input.vae}},
        "11": {
            "class_type": "DualCLIPLoader",
            "inputs": {"clip_name1": input.t5xxl, "clip_name2": input.clip_l, "type": "flux"},
        },
        "12": {
            "class_type": "UNETLoader",
            "inputs": {"unet_name": input.model, "weight_dtype": input.weight_dtype},
        },
        "26": {"class_type": "FluxGuidance", "inputs": {"guidance": input.guidance, "conditioning": ["6", 0]}},
        "27": {"class_type": "LoadImage", "inputs": {"image": input.image}},
        "28": {"class_type": "VAEEncode", "inputs": {"pixels": ["27", 0], "vae": ["10", 0]}},
        "31": {
            "class_type": "KSampler",
            "inputs": {
                "seed": context.seed if input.seed is None else input.seed,
                "steps": input.steps,
                # FLUX is distilled: guidance is an input of the model, and classifier-free guidance is off.
                "cfg": 1.0,
                "sampler_name": input.sampler_name,
                "scheduler": input.scheduler,
                "denoise": input.denoise,
                "model": ["12", 0],
                "positive": ["26", 0],
                "negative": ["33", 0],
                "latent_image": ["28", 0],
            },
        },
        "33": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["6", 0]}},
    }
