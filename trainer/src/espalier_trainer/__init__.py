"""What runs on the accelerator: the runner, its ranks, and a small server for the trained model.

`espalier_trainer.train` is one rank; `espalier_trainer.runner` starts the ranks and speaks for them.
"""
