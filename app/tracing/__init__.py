"""Traces by OpenTelemetry: off unless the standard OTEL_* variables ask for them; its SDK is not imported until then.

``sdk`` opens the exporter, ``prompts`` makes the spans of the worker, ``webhooks`` those of the bridge.
"""
