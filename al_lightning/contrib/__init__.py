"""Methods that were measured and do not pay in the default path; their cards say by how much."""

from typing import TYPE_CHECKING

from al_lightning.lazy import lazily

if TYPE_CHECKING:
    from al_lightning.contrib.policies import Dash, Fire, Gated, Replay, ShrinkPerturb, Thaw

__all__ = ["Dash", "Fire", "Gated", "Replay", "ShrinkPerturb", "Thaw"]
__getattr__, __dir__ = lazily(__name__, {"policies": "Dash Fire Gated Replay ShrinkPerturb Thaw"})
