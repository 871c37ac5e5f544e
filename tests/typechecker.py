"""The checker of jaxtyping's shapes: beartype, with ints accepted for floats as in typing."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
