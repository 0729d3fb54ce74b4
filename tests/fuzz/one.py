"""Fuzzes one target in this process, guided by coverage, with the options of libFuzzer: one.py TARGET OPTION…"""

import importlib
import sys

import atheris

# What guides the search must be imported through atheris, so each target is named here before any is known.
GUIDES = (
    "bridge.registry.zips", "zipfile", "bridge.pipeline.filters", "bridge.pipeline.patterns", "bridge.pipeline.generated",
    "bridge.pipeline.ranges", "bridge.runtime.process", "bridge.runtime.loopback_http", "bridge.registry.sigv4",
    "bridge.sources.push.signatures",
)  # fmt: skip


def main() -> None:
    """Run until the options say so; a finding ends the process with libFuzzer's status."""
    with atheris.instrument_imports(include=list(GUIDES), enable_loader_override=False):
        targets = importlib.import_module("tests.fuzz.targets").TARGETS
    atheris.Setup([sys.argv[0], *sys.argv[2:]], targets[sys.argv[1]].run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
