"""What can be a tag, and what is said of anything else."""

from __future__ import annotations

from enum import Enum
from typing import Any

import pytest

from rq_lite.errors import UsageError
from rq_lite.model.tags import LONGEST, MOST, check_tags


class Kind(str, Enum):  # noqa: UP042 -- whose str() is another text
    IMPORT = "import"


def test_tags_keep_their_order_and_come_once() -> None:
    assert check_tags("tags", ["b", "a b", "b", "ü", Kind.IMPORT]) == ("b", "a b", "ü", "import")
    assert check_tags("tags", ()) == ()
    assert [type(tag) for tag in check_tags("tags", [Kind.IMPORT])] == [str]
    assert len(check_tags("tags", [*map(str, range(MOST)), "0"])) == MOST
    assert check_tags("tags", ["ü" * (LONGEST // 2)])


@pytest.mark.parametrize(
    "wrong",
    [
        "", " ", " a", "a ", "a\n", "a\tb", "a\x00b", "a\x7f", "a\x9b", "\u2003a", "\udc80", "x" * 101, "ü" * 51,
        b"a", 7, None,
    ],
)  # fmt: skip
def test_what_cannot_be_a_tag_is_named(wrong: Any) -> None:
    with pytest.raises(UsageError) as raised:
        check_tags("tags", ["good", wrong])
    said = str(raised.value)
    assert said.startswith(f"tags: {wrong!r:.15}")
    assert said.endswith(
        " cannot be a tag: a tag is text of 1 to 100 bytes in UTF-8, without control characters, and without white "
        "space at its ends"
    )


def test_too_many_are_counted_and_the_first_of_them_is_named() -> None:
    with pytest.raises(UsageError, match=r"^tags: a job has at most 20 tags, not 22; leave out '20', …$"):
        check_tags("tags", [*map(str, range(22))])


@pytest.mark.parametrize("wrong", ["import", b"import", {"a": 1}, {"a"}, 7, None])
def test_anything_but_a_list_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r'^tags must be a list, as in tags=\["import", "customer-7"\], not '):
        check_tags("tags", wrong)
