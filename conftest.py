"""How programs are made while tests and doctests run: compiling is most of their time, and each program runs a few times."""

import gc

import jax

from flows.training.loop import trainer

jax.config.update("jax_disable_most_optimizations", True)
trainer.SMALL = -1  # so that `fit` does not ask for more
jax.config.update("jax_traceback_in_locations_limit", 0)  # nobody reads where in the source a program comes from
# Tracing makes many objects that live on; looking for cycles among them all is a tenth of the time.
gc.freeze()
gc.set_threshold(200_000, 20, 20)
