"""The nodes around KSampler in the stock text-to-image graph: same inputs, coloured noise, no model is read.

Used by catalogue; may import its folder alone.
"""

from __future__ import annotations

from PIL import Image

from app.comfy.standin.node_types import (
    MAX_RESOLUTION,
    ImageBatch,
    Input,
    JsonObject,
    Node,
    Produced,
    Workbench,
    demand_memory,
)
from app.comfy.standin.nodes_sampling import Latent, noise


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
            grain = noise(f"{latent.seed}/{index}")
            frames.append(grain.resize((latent.width, latent.height), Image.Resampling.BICUBIC))
        return Produced((ImageBatch(tuple(frames)),))
