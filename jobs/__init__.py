"""The verbs: one file each, run as `python jobs/VERB.py`."""
