"""Reports made from saved results: run page, search page, audit page, model card, figures."""
