"""From a TOML file to a bundle: data, networks, training on Ray Train, evaluation."""
