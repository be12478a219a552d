"""Publishing a model folder on the Hugging Face Hub: checks, a preview, one commit.

It may import every room on its left, as cards and training; only the public API and the command import it.
"""

from distilface.hub.publishing import push
from distilface.hub.settings import PushSettings

__all__ = ["PushSettings", "push"]
