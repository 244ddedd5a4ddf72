"""The ground the rooms run on: connecting to Ray, jobs, cluster checks and cloud nodes."""
