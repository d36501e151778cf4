"""Settings as plain data: field types, sections, the experiment, recipes, YAML files."""
