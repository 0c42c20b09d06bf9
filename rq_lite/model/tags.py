"""Tags: words that a put gives to its jobs, to find them by. Nothing else depends on them."""

from __future__ import annotations

import re
from typing import Any

from rq_lite.checks import shown
from rq_lite.errors import UsageError

MOST = 20  # of one job
LONGEST = 100  # bytes of UTF-8
FORM = re.compile(r"(?!\s)[^\x00-\x1f\x7f-\x9f]+(?<!\s)")
WANTED = f"text of 1 to {LONGEST} bytes in UTF-8, without control characters, and without white space at its ends"


def check_tags(name: str, value: Any) -> tuple[str, ...]:
    """The tags in their order, each once. Raises UsageError for what cannot be a tag, and for too many."""
    if not isinstance(value, (list, tuple)):
        raise UsageError(f'{name} must be a list, as in {name}=["import", "customer-7"], not {shown(value)}')
    for tag in value:
        if not is_tag(tag):
            raise UsageError(f"{name}: {shown(tag)} cannot be a tag: a tag is {WANTED}")
    tags = tuple(dict.fromkeys(str.__str__(tag) for tag in value))
    if len(tags) > MOST:
        raise UsageError(f"{name}: a job has at most {MOST} tags, not {len(tags)}; leave out {shown(tags[MOST])}, …")
    return tags


def is_tag(tag: object) -> bool:
    if not isinstance(tag, str) or not FORM.fullmatch(tag):
        return False
    try:
        return len(tag.encode()) <= LONGEST
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
