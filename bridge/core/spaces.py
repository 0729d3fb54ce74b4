"""Name spaces of Lambda's API: an account in a region, and how its functions are called where all of them are."""

import re
from typing import Final, NamedTuple

from bridge.core.function import ACCOUNT_DEFAULT, REGION_DEFAULT, SPACE_MARK, function_arn

REGION_PATTERN: Final = re.compile(r"(?=.{1,32}\Z)[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2}\Z")
"""`eu-central-1`, `us-gov-west-1`."""


class Space(NamedTuple):
    """One name space: names, numbers of versions and limits are its own."""

    account: str
    """12 digits."""
    region: str

    @property
    def name(self) -> str:
        """`REGION.ACCOUNT`, as it stands behind a function's name."""
        return f"{self.region}.{self.account}"

    def arn(self, name: str) -> str:
        """Return the unqualified ARN of a function that is called so where this is the file's name space."""
        return function_arn(name, region=self.region, account=self.account)

    def key(self, name: str, *, home: "Space") -> str:
        """Return what a function of this name space is called where all of them are: catalog, lanes, logs, metrics.

        Args:
            name: as callers know it.
            home: the file's name space, whose functions keep their names.
        """
        return name if self == home else f"{name}{SPACE_MARK}{self.name}"

    def called(self, arn: str) -> str:
        """Return what the function of an ARN is called where this is the file's name space, its qualifier behind it."""
        region, account, _, name = arn.split(":", 6)[3:]
        name, colon, qualifier = name.partition(":")
        return Space(account, region).key(name, home=self) + colon + qualifier

    def within(self, name: str) -> "Space":
        """Return the name space of a function that is called so where this is the file's."""
        _, mark, space = name.partition(SPACE_MARK)
        if not mark:
            return self
        region, _, account = space.rpartition(".")
        return Space(account, region)


HOME_DEFAULT: Final = Space(ACCOUNT_DEFAULT, REGION_DEFAULT)
"""The file's name space where it names none."""
