"""What people look at: one HTML page, or one picture, of a finished output folder."""
