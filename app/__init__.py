"""Comfybus: ComfyUI behind a message broker, as a worker, a webhook bridge and commands; see docs/architecture.md."""
