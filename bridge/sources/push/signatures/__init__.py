"""Who may post to a route: signature schemes by name, each with several secrets so that they can be rotated."""

from bridge.sources.push.signatures.base import Unavailable, Verdict, Verifier
from bridge.sources.push.signatures.registry import SCHEMES, make_verifier

__all__ = ["SCHEMES", "Unavailable", "Verdict", "Verifier", "make_verifier"]
