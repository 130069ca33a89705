"""The side-by-side benchmark: the same pictures, questions and weights through rsqa and through what else there is."""
