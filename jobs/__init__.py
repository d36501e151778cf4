"""The verbs, one file each: `python jobs/VERB.py --help`."""
