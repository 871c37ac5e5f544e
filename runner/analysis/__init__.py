"""From tables to statements: regimes over a grid, exponents against width. pandas only, never torch."""
