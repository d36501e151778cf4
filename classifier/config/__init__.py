"""Settings as plain data: fields, sections, the experiment, recipes, YAML files."""
