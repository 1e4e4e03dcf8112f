"""How long a round takes in Hanse, in other libraries, and in a plain PyTorch loop."""
