"""The verbs in their groups, with what each is for; imports nothing, so that `classifier --help` is instant."""

COMMAND = "classifier"
"""The installed command."""

VERB_GROUPS = {
    "data": {
        "audit": "Find what is wrong with a data set before training on it.",
        "show": "Draw a grid of what the model sees, before and after augmentation.",
        "label": "Label images in the browser, the most useful first.",
    },
    "train": {
        "train": "Train an image classifier and save it as a bundle.",
        "tune": "Search for the best settings, and save the best model.",
        "pretrain": "Pretrain a network on images without labels.",
        "update": "Update a model with new images and classes, if it gets better.",
    },
    "judge": {
        "evaluate": "Test a model on the held-out test split, once.",
        "crossval": "Cross-validate: test every image with a model not trained on it.",
        "curve": "Draw a learning curve: accuracy against the number of images.",
        "compare": "Compare models on the same test images, with a significance test.",
        "robust": "Test a model under corruptions, attacks and other data.",
        "calibrate": "Calibrate a model's probabilities, and decide when it abstains.",
    },
    "use": {
        "predict": "Classify images.",
        "export": "Export a model to ONNX or OpenVINO, to predict without torch.",
        "compress": "Make a model smaller and faster, within a limit of lost accuracy.",
        "serve": "Serve models over HTTP, in batches, within bounds.",
        "watch": "Watch a video, a camera or a folder, and raise alerts.",
        "drift": "Find out whether images have changed, without labels.",
    },
    "runs": {
        "runs": "List the runs: what they are, how they ended, how good they are.",
        "report": "Write report.html of a run.",
        "plan": "Forecast time, memory and cost of a training on N workers.",
        "drill": "Fire drill: check that a killed training loses nothing.",
    },
}

SUMMARIES = {name: summary for verbs in VERB_GROUPS.values() for name, summary in verbs.items()}

FIRST_PHASES = {
    "audit": "starting",
    "show": "drawing",
    "train": "starting",
    "tune": "starting",
    "pretrain": "starting",
    "update": "starting",
    "evaluate": "testing",
    "crossval": "starting",
    "curve": "starting",
    "compare": "comparing",
    "robust": "measuring",
    "calibrate": "calibrating",
    "predict": "predicting",
    "export": "exporting",
    "compress": "starting",
    "drift": "measuring",
    "report": "writing the report",
    "plan": "measuring",
    "drill": "drilling",
}
"""What a verb is said to be doing from its start, while it loads torch, until it says something else."""
