"""A package, so that the service its tests share (pytest's scope "package") ends after the last."""
