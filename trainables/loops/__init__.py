"""Users' own training loops as tasks: a Python function, or any command."""

#: The functions of a program beside its training function, and how they are called.
OTHERS = {
    "test": "test(trial, **parts)", "export": "export(trial, folder, **parts)", "predict": "predict(model, inputs)",
}  # fmt: skip
#: A search ends with a final training if its program brings one of these. `final` is a final command.
ENDS_WITH_TRAINING = frozenset({"test", "export", "final"})
#: The file with the output of a trial, in the trial's folder.
LOG = "output.log"
