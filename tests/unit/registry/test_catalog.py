"""The catalog: AWS's words for what is not there, revisions that follow code and configuration, replacement as one."""

import dataclasses
import threading
from pathlib import Path

import pytest

from bridge.core.errors import ConfigError, FunctionNotFound
from bridge.core.function import EventInvokeConfig
from bridge.registry.catalog import FunctionCatalog, FunctionSpec, build_function


@pytest.fixture
def spec(tmp_path: Path) -> FunctionSpec:
    code = tmp_path / "code"
    code.mkdir()
    (code / "app.py").write_text("a = 1\n")
    return FunctionSpec(name="hello", code=code, handler="app.handler", environment={"TOKEN": "canary"})


class TestLookup:
    def test_of_a_function(self, spec):
        catalog = FunctionCatalog.from_specs([spec], region="eu-west-1", account="123456789012")
        function = catalog.get("hello")

        assert function.latest.arn == "arn:aws:lambda:eu-west-1:123456789012:function:hello"
        assert (function.latest.code, function.latest.region) == (str(spec.code), "eu-west-1")
        assert function.version("$LATEST") is function.latest
        assert ("hello" in catalog, "other" in catalog, len(catalog)) == (True, False, 1)

    def test_of_none(self):
        catalog = FunctionCatalog(region="eu-west-1", account="123456789012")

        with pytest.raises(FunctionNotFound) as caught:
            catalog.get("gone")

        expected = "Function not found: arn:aws:lambda:eu-west-1:123456789012:function:gone:$LATEST"
        assert str(caught.value) == expected

    def test_a_name_with_the_files_own_name_space_is_the_files_function(self, spec):
        catalog = FunctionCatalog.from_specs([spec], region="eu-west-1", account="123456789012")

        assert catalog.get(f"{spec.name}@eu-west-1.123456789012") is catalog.get(spec.name)
        for other in ("us-east-1.123456789012", "eu-west-1.000000000000"):
            with pytest.raises(FunctionNotFound):
                catalog.get(f"{spec.name}@{other}")

    def test_all_by_name(self, spec):
        catalog = FunctionCatalog.from_specs([dataclasses.replace(spec, name=name) for name in "bca"])

        assert [function.name for function in catalog.functions()] == ["a", "b", "c"]

    def test_what_is_reserved(self, spec):
        reserved = [None, 0, 3, 4]
        specs = [dataclasses.replace(spec, name=f"f{n}", reserved_concurrency=r) for n, r in enumerate(reserved)]

        assert FunctionCatalog.from_specs(specs).reserved() == {"": 7}

    def test_a_folder_that_is_gone(self, spec, tmp_path):
        with pytest.raises(ConfigError, match="no such file"):
            FunctionCatalog.from_specs([dataclasses.replace(spec, code=tmp_path / "gone")])


class TestRevision:
    def test_is_the_same_for_the_same(self, spec):
        assert build_function(spec) == build_function(spec)

    @pytest.mark.parametrize(
        "change",
        [{"handler": "app.other"}, {"timeout_s": 4}, {"memory_mb": 129}, {"ephemeral_storage_mb": 513}, {"environment": {"TOKEN": "new"}}],
    )  # fmt: skip
    def test_changes_with_what_a_worker_was_started_with(self, spec, change):
        assert (
            build_function(dataclasses.replace(spec, **change)).latest.revision != build_function(spec).latest.revision
        )

    @pytest.mark.parametrize(
        "change", [{"reserved_concurrency": 5}, {"event_invoke": EventInvokeConfig(maximum_retry_attempts=0)}]
    )
    def test_stays_where_workers_do_not_care(self, spec, change):
        assert (
            build_function(dataclasses.replace(spec, **change)).latest.revision == build_function(spec).latest.revision
        )

    def test_changes_when_a_link_is_turned(self, spec, tmp_path):
        (tmp_path / "other").mkdir()
        link = tmp_path / "current"
        link.symlink_to("code")
        linked = dataclasses.replace(spec, code=link)
        before = build_function(linked).latest
        link.unlink()
        link.symlink_to("other")

        assert before.code == str(link)
        assert build_function(linked).latest.revision != before.revision

    def test_shows_no_secret(self, spec):
        function = build_function(spec)

        assert "canary" not in repr(function) + repr(spec)
        assert len(function.latest.revision) == 32


class TestReplace:
    def test_tells_what_came_went_and_changed(self, spec):
        def catalog(**timeouts: int) -> FunctionCatalog:
            return FunctionCatalog.from_specs(
                [dataclasses.replace(spec, name=n, timeout_s=t) for n, t in timeouts.items()]
            )

        current = catalog(same=3, changed=3, went=3)
        kept = current.get("same")

        assert current.replace_all(catalog(same=3, changed=4, came=3)) == {"changed", "came", "went"}
        assert current.get("changed").latest.timeout_s == 4
        assert current.get("same") == kept
        assert "went" not in current
        assert current.replace_all(catalog(same=3, changed=4, came=3)) == frozenset()

    def test_counts_limits_that_are_no_part_of_the_revision(self, spec):
        current = FunctionCatalog.from_specs([spec])

        assert current.replace_all(FunctionCatalog.from_specs([dataclasses.replace(spec, reserved_concurrency=1)])) == {
            "hello"
        }

    def test_takes_over_region_and_account(self, spec):
        current = FunctionCatalog()
        current.replace_all(FunctionCatalog(region="eu-west-1", account="123456789012"))

        with pytest.raises(FunctionNotFound, match="eu-west-1:123456789012"):
            current.get("x")

    def test_what_was_looked_up_stays_as_it_was(self, spec):
        current = FunctionCatalog.from_specs([spec])
        held = current.get("hello")
        current.replace_all(FunctionCatalog())

        assert held.latest.handler == "app.handler"


class TestRefresh:
    def test_sees_an_edit_once(self, spec):
        catalog = FunctionCatalog.from_specs([spec])
        before = catalog.get("hello")

        assert not catalog.refresh("hello")
        assert catalog.get("hello") is before
        (spec.code / "app.py").write_text("a = 22\n")
        assert catalog.refresh("hello")
        assert catalog.get("hello").latest.revision != before.latest.revision
        assert not catalog.refresh("hello")

    def test_keeps_the_function_while_its_folder_is_gone(self, spec):
        catalog = FunctionCatalog.from_specs([spec])
        spec.code.rename(spec.code.with_name("away"))

        with pytest.raises(ConfigError, match="no such file"):
            catalog.refresh("hello")
        assert "hello" in catalog

    def test_of_none(self):
        with pytest.raises(FunctionNotFound):
            FunctionCatalog().refresh("gone")

    def test_of_many_at_once_loses_none(self, spec):
        """Threads that refresh different functions must not undo each other."""
        names = [f"f{number}" for number in range(16)]
        catalog = FunctionCatalog.from_specs([dataclasses.replace(spec, name=name) for name in names])
        before = {name: catalog.get(name).latest.revision for name in names}
        (spec.code / "app.py").write_text("a = 22\n")
        threads = [threading.Thread(target=catalog.refresh, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [name for name in names if catalog.get(name).latest.revision == before[name]] == []
