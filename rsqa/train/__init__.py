"""Training: recipes, data, one visible loop per method."""
