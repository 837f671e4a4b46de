"""Settings that have another place now."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from al_lightning.errors import BadPart

T = TypeVar("T")


def moved(**places: str) -> Callable[[type[T]], type[T]]:
    """Refuse settings that a class had once, by a sentence that says where they are now.

    Args:
        **places: setting -> what to write instead.
    """

    def decorate(kind: type[T]) -> type[T]:
        init = kind.__init__

        @functools.wraps(init)
        def checked(self: T, *args: Any, **settings: Any) -> None:
            for name in settings.keys() & places.keys():
                raise BadPart(f"{type(self).__name__}({name}={settings[name]!r}) has moved: {places[name]}.")
            init(self, *args, **settings)

        kind.__init__ = checked  # type: ignore[method-assign]
        return kind

    return decorate
