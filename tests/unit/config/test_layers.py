"""`layers` of `[functions.X]`: paths beside the file and ARNs, in order, and what is wrong with them."""

import pytest

from bridge.config.functions import function_specs
from tests.unit.config.conftest import GOOD

ARN = "arn:aws:lambda:us-east-1:000000000000:layer:tools:3"


def with_layers(text):
    return GOOD.replace('handler = "app.handler"', f'handler = "app.handler"\nlayers = {text}')


def test_paths_start_at_the_file_and_arns_stay(folder, load_text):
    (folder / "layers/common").mkdir(parents=True)
    (folder / "tools.zip").write_bytes(b"")
    (spec,) = function_specs(load_text(with_layers(f'["layers/common", "tools.zip", "{ARN}"]')).settings)

    assert spec.layers == (str(folder / "layers/common"), str(folder / "tools.zip"), ARN)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ('["gone"]', "no such folder or zip"),
        ('["code", "./code"]', "functions.hello.layers[1]: is there twice"),
        (f'["{ARN}", "{ARN[:-1]}4"]', "functions.hello.layers[1]: names the layer tools once more"),
        ('["arn:aws:lambda:us-east-1:000000000000:layer:tools"]', "must be a layer version's ARN"),
        ('["arn:aws:lambda:eu-west-1:000000000000:layer:tools:1"]', "functions of this file are in us-east-1"),
        ("[3]", "must be the ARN of a layer version, or the path of a folder or a zip"),
        ('["code", "a", "b", "c", "d", "e"]', "5"),
    ],
)
def test_mistakes(folder, mistakes, written, told):
    assert told in mistakes(with_layers(written))[-1]
