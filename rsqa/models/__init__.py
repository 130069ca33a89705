"""Networks: the static-shape forward of Qwen2-VL and what is composed around it."""
