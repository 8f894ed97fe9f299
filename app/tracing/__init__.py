"""Traces by OpenTelemetry: off unless the standard OTEL_* variables ask for them, and then nothing of it is imported.

``sdk`` opens the exporter, ``prompts`` makes the spans of the worker, ``webhooks`` those of the bridge.
"""
