"""Many accidents at once: a storm over real processes, and the checker that judges what is left."""
