"""Callbacks for the user's Trainer, each a pure decision with a thin class on it."""

from al_lightning.callbacks.round_plateau import RoundPlateau
from al_lightning.callbacks.stall_detection import StallDetection
from al_lightning.callbacks.warm_start import WarmStart

__all__ = ["RoundPlateau", "StallDetection", "WarmStart"]
