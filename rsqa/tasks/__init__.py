"""Language: questions, prompts and what is read from replies. No torch, no rasterio."""
