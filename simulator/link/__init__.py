"""The 5G link: a seeded radio in user space, and the networks to compare it with."""
