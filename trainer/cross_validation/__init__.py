"""Cross-validation: a run for each fold of the patients, and one table of all patients.

May import all other packages of trainer.
"""
