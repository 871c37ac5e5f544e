"""How init, multiplier and learning rate of a parameter follow from its width."""
