"""The generated documents: JSON Schemas of every message and the AsyncAPI document of every channel."""
