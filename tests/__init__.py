"""The tests, path for path beside the code; a package, as what shares a service must be one."""
