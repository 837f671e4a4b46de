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

    def decorate(kind: type[T]) -> type[T]:
        init = kind.__init__

        @functools.wraps(init)
        def checked(self: T, *args: Any, **settings: Any) -> None:
            for name in settings.keys() & places.keys():
                raise BadPart(f"{type(self).__name__}({name}={settings[name]!r}) has moved: {places[name]}.")
            init(self, *args, **settings)

        kind.__init__ = checked  # type: ignore[method-assign, assignment]
        return kind

    return decorate


def passed_to_fit(*names: str) -> Callable[[type[T]], type[T]]:
    """Take settings that ``fit`` has now from the constructor, too, for one release, with a DeprecationWarning.

    Args:
        *names: of the settings.
    """

    def decorate(kind: type[T]) -> type[T]:
        init, fit = kind.__init__, kind.fit  # type: ignore[attr-defined]

        @functools.wraps(init)
        def accepting(self: Any, *args: Any, **settings: Any) -> None:
            given = {name: settings.pop(name) for name in names if name in settings}
            for name in given:
                warnings.warn(
                    f"ActiveLearner({name}=...) is an argument of fit() now: learner.fit(model, pool, {name}=...).",
                    DeprecationWarning,
                    stacklevel=2,
                )
            init(self, *args, **settings)
            self._passed = given

        @functools.wraps(fit)
        def fitting(self: Any, *args: Any, **settings: Any) -> Any:
            return fit(self, *args, **{**self._passed, **settings})

        kind.__init__, kind.fit = accepting, fitting  # type: ignore[method-assign, attr-defined]
        return kind

    return decorate


def renamed_setting(**names: str) -> Callable[[type[T]], type[T]]:
    """Take a setting by the name it had in the last release, too, with a DeprecationWarning.

    Args:
        **names: old -> new.
    """

    def decorate(kind: type[T]) -> type[T]:
        init = kind.__init__

        @functools.wraps(init)
        def accepting(self: T, *args: Any, **settings: Any) -> None:
            for old, new in names.items():
                if old in settings:
                    warnings.warn(f"{kind.__name__}({old}=) is {new}= now.", DeprecationWarning, stacklevel=2)
                    settings[new] = settings.pop(old)
            init(self, *args, **settings)

        kind.__init__ = accepting  # type: ignore[method-assign, assignment]
        return kind

    return decorate
