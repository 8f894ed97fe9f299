"""The options of ``convert_output``: each is honoured, met as nearly as Pillow can, or refused with the reason.

Used by convert; may import app.errors, schemas.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator

from app.errors import InvalidRequest
from schemas.base import Strict, first_wrong_field
from schemas.prompt import ConvertOutput

__all__ = ["JpegOptions", "Options", "WebpOptions", "check_options"]


def _whole(value: Any) -> Any:
    """JSON of other languages writes 80 as 80.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Quality = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=100)]


def _only(value: Any, usual: Any, reason: str) -> Any:
    if value != usual:
        raise ValueError(f"only {str(usual).lower()} is possible: {reason}")
    return value


class JpegOptions(Strict):
    """Options for ``jpeg`` and ``jpg``. Names, defaults and ranges are sharp's, which comfyui-api passes them to."""

    quality: _Quality = 80
    progressive: bool = False
    chromaSubsampling: Literal["4:2:0", "4:4:4"] = "4:2:0"  # noqa: N815 - names of the wire
    optimizeCoding: bool = True  # noqa: N815
    mozjpeg: bool = Field(default=False, description="Nearest: progressive with optimised coding.")
    optimizeScans: bool = Field(default=False, description="Nearest: progressive.")  # noqa: N815
    trellisQuantisation: bool = Field(default=False, description="Only false.")  # noqa: N815
    overshootDeringing: bool = Field(default=False, description="Only false.")  # noqa: N815
    quantisationTable: Annotated[int, BeforeValidator(_whole)] = Field(  # noqa: N815
        default=0, description="Only 0, the tables of the standard."
    )
    background: str = Field(
        default="#000000", pattern=r"^#[0-9A-Fa-f]{6}$", description="Colour behind transparent pixels."
    )
    keepMetadata: bool = Field(  # noqa: N815
        default=False, description="Keep EXIF and ComfyUI's prompt and workflow."
    )

    @field_validator("trellisQuantisation", "overshootDeringing")
    @classmethod
    def _mozjpeg_only(cls, value: bool) -> Any:
        return _only(value, False, "it needs mozjpeg's encoder, and this worker has libjpeg-turbo")

    @field_validator("quantisationTable")
    @classmethod
    def _standard_table(cls, value: int) -> Any:
        return _only(value, 0, "the other tables are mozjpeg's, and this worker has libjpeg-turbo")

    def pillow(self) -> dict[str, Any]:
        """Arguments for Pillow's JPEG encoder."""
        return {
            "quality": self.quality,
            "progressive": self.progressive or self.mozjpeg or self.optimizeScans,
            "subsampling": self.chromaSubsampling,
            "optimize": self.optimizeCoding or self.mozjpeg,
            # Else a comment of the source would be carried over.
            "comment": b"",
        }


class WebpOptions(Strict):
    """Options for ``webp``. Names, defaults and ranges are sharp's, which comfyui-api passes them to."""

    quality: _Quality = 80
    alphaQuality: Annotated[int, BeforeValidator(_whole), Field(ge=0, le=100)] = 100  # noqa: N815
    lossless: bool = False
    nearLossless: bool = Field(default=False, description="Nearest: lossless.")  # noqa: N815
    smartSubsample: bool = Field(default=False, description="Only false.")  # noqa: N815
    preset: Literal["default", "photo", "picture", "drawing", "icon", "text"] = Field(
        default="default", description="Only default."
    )
    effort: Annotated[int, BeforeValidator(_whole), Field(ge=0, le=6)] = 4
    keepMetadata: bool = Field(  # noqa: N815
        default=False, description="Keep EXIF and ComfyUI's prompt and workflow."
    )

    @field_validator("smartSubsample")
    @classmethod
    def _no_sharp_yuv(cls, value: bool) -> Any:
        return _only(value, False, "Pillow does not give this switch of the encoder; use lossless for sharp edges")

    @field_validator("preset")
    @classmethod
    def _no_presets(cls, value: str) -> Any:
        return _only(value, "default", "Pillow does not give the encoder's presets; use quality and effort")

    def pillow(self) -> dict[str, Any]:
        """Arguments for Pillow's WebP encoder."""
        lossless = self.lossless or self.nearLossless
        return {
            "quality": self.quality,
            "alpha_quality": self.alphaQuality,
            "lossless": lossless,
            # Lossless means the colour of transparent pixels too.
            "exact": lossless,
            "method": self.effort,
        }


Options = JpegOptions | WebpOptions


def check_options(wanted: ConvertOutput) -> Options:
    """The options in their own type, for the format that is asked for; called before a prompt runs.

    Raises:
        InvalidRequest: A name that this format has not, or a value out of range or not possible here; ``location`` is
            ``convert_output.options.<name>``.
    """
    model: type[JpegOptions | WebpOptions] = WebpOptions if wanted.format == "webp" else JpegOptions
    try:
        return model.model_validate(wanted.options)
    except ValidationError as exc:
        wrong = first_wrong_field(exc)
        name = wrong.location or "options"
        raise InvalidRequest(
            f"The option {name[:100]!r} of {wanted.format} cannot be used: {wrong.reason}.",
            location=f"convert_output.options.{wrong.location}".rstrip("."),
        ) from exc
