"""Pages made from saved results alone: report, search page, audit page, model card."""
