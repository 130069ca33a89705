"""A run: the plan, its parts, who executes them, and the straight line through a part."""
