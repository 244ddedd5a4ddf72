"""The tests, path for path next to the code; a package, as what shares a service must be one."""
