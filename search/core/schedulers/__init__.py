"""Schedulers stop, pause and promote trials. `search.core.registry.SCHEDULERS` names them."""
