"""`espalier demo`: the main job from text to a model that answers, through the public API."""
