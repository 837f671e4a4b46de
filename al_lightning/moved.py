"""Settings that have another place now."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from al_lightning.errors import BadPart

T = TypeVar("T")


def moved(**places: str) -> Callable[[type[T]], type[T]]:
    """Refuse settings that a class had once, by a sentence that says where they are now.

    Args:
        **places: setting -> what to write instead.
    """

    def refuse(self: object, settings: dict[str, Any]) -> None:
        for name in settings.keys() & places.keys():
            raise BadPart(f"{type(self).__name__}({name}={settings[name]!r}) has moved: {places[name]}.")

    return _looking_at_settings(refuse)


def passed_to_fit(*names: str) -> Callable[[type[T]], type[T]]:
    """Take settings that ``fit`` has now from the constructor, too, for one release, with a DeprecationWarning.

    Args:
        *names: of the settings.
    """

    def keep(self: Any, settings: dict[str, Any]) -> None:
        self._passed = {name: settings.pop(name) for name in names if name in settings}
        for name in self._passed:
            warnings.warn(
                f"ActiveLearner({name}=...) is an argument of fit() now: learner.fit(model, pool, {name}=...).",
                DeprecationWarning,
                stacklevel=3,
            )

    def decorate(kind: type[T]) -> type[T]:
        fit = kind.fit  # type: ignore[attr-defined]

        @functools.wraps(fit)
        def fitting(self: Any, *args: Any, **settings: Any) -> Any:
            return fit(self, *args, **{**self._passed, **settings})

        kind.fit = fitting  # type: ignore[attr-defined]
        return _looking_at_settings(keep)(kind)

    return decorate


def renamed_setting(**names: str) -> Callable[[type[T]], type[T]]:
    """Take a setting by the name it had in the last release, too, with a DeprecationWarning.

    Args:
        **names: old -> new.
    """

    def rename(self: object, settings: dict[str, Any]) -> None:
        for old, new in names.items():
            if old in settings:
                warnings.warn(f"{type(self).__name__}({old}=) is {new}= now.", DeprecationWarning, stacklevel=3)
                settings[new] = settings.pop(old)

    return _looking_at_settings(rename)


def _looking_at_settings(look: Callable[[Any, dict[str, Any]], None]) -> Callable[[type[T]], type[T]]:
    """Have a class look at the named settings it is made with, and change them, before it takes them."""

    def decorate(kind: type[T]) -> type[T]:
        init = kind.__init__

        @functools.wraps(init)
        def looking(self: T, *args: Any, **settings: Any) -> None:
            look(self, settings)
            init(self, *args, **settings)

        kind.__init__ = looking  # type: ignore[method-assign, assignment]
        return kind

    return decorate
