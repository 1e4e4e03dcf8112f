"""A round on a graphics card: Hanse, a plain PyTorch loop, pfl, and what the card can do."""
