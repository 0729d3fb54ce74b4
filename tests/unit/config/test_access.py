"""Who may call Lambda's API decides whether functions may reach its port."""

import pytest

from bridge.config.access import hidden_ports
from bridge.config.load import load


@pytest.mark.parametrize(
    ("more", "hidden"),
    [
        ("", (8599,)),
        ("api = { auth = 'none' }", ()),
        ("access_keys = { BRIDGEKEY = { secret = { env = 'LAMBDA_SECRET' } } }", ()),
    ],
)
def test_functions_reach_the_api_where_somebody_may_call_it(tmp_path, monkeypatch, more, hidden):
    monkeypatch.setenv("LAMBDA_SECRET", "a-secret-of-this-test")
    file = tmp_path / "bridge.toml"
    file.write_text(f"listen = {{ api = '127.0.0.1:8599' }}\n{more}\n")
    assert hidden_ports(load(file).settings) == hidden
