"""Reads searches that other tools made (studies of Optuna, experiment folders of Ray Tune) and writes studies."""
