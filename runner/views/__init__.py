"""Tables turned into pictures and text; never torch, and a plotting library only where a figure is drawn."""
