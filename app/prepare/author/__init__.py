"""``comfybus workflow generate``: has a language model turn a graph into a workflow, and believes nothing of it.

Used by app.cli.workflow; may import its folder alone.
"""

from app.prepare.author.author import author_workflow
from app.prepare.author.language_models import AuthorConfig, AuthorFailed

__all__ = ["AuthorConfig", "AuthorFailed", "author_workflow"]
