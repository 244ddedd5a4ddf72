"""Ray jobs: submission, records and logs in the storage, and the supervisor on the head node."""
