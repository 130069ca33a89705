"""Procedural orthomosaics of known truth: for the demo, for training and for tests. Start at `compose.make_scene`."""
