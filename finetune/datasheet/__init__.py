"""What a training would be fed: counts, repeats, pixels, and the pictures as they reach the backbone."""
