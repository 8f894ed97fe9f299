"""The stream processor: takes requests, carries each through its stages, answers and settles it."""
