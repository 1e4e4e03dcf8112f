"""How gradients are computed: the path and the size of a block, chosen by measuring the real thing.

On the computer's processor (`on_processor`) or on a graphics card (`on_card`); what was chosen is
remembered for the model and the machine (`remembered`).
"""
