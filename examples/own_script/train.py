"""A training of transformers with several processes, as it stands: `torchrun --standalone --nproc-per-node 2 train.py`.

As a search, with early stopping that ends all of its processes:

    python -m search run --command 'torchrun --standalone --nproc-per-node 2 train.py' --space space.yaml \\
        --objective 'eval_loss min'
"""

import os

import torch
import transformers
from report import folder, known_epochs, params, report

values = params(lr=1e-3, epochs=3, seed=0)


class Report(transformers.TrainerCallback):
    """Six lines that make a Trainer a trial; the rest of this file knows nothing of a search."""

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        if state.is_world_process_zero:
            report(epoch=round(state.epoch), eval_loss=metrics["eval_loss"])


transformers.set_seed(values["seed"])
config = transformers.DistilBertConfig(vocab_size=60, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
generator = torch.Generator().manual_seed(0)
data = [
    {"input_ids": torch.randint(1, 60, (8,), generator=generator), "labels": torch.tensor(i % 2)} for i in range(32)
]
trainer = transformers.Trainer(
    transformers.DistilBertForSequenceClassification(config),
    transformers.TrainingArguments(
        output_dir=str(folder() / "checkpoints"), learning_rate=values["lr"], num_train_epochs=values["epochs"],
        eval_strategy="epoch", save_strategy="epoch", use_cpu=not torch.cuda.is_available(), report_to="none",
        disable_tqdm=True, seed=values["seed"],
    ),
    train_dataset=data, eval_dataset=data, callbacks=[Report()],
)  # fmt: skip
# After a kill: from the newest checkpoint of an epoch that the search knows. Without one it begins anew, and what it
# reports again is passed over.
steps = len(data) // (trainer.args.per_device_train_batch_size * int(os.environ.get("WORLD_SIZE", 1)))
done = [n for n in range(known_epochs() * steps, 0, -1) if (folder() / "checkpoints" / f"checkpoint-{n}").exists()]
trainer.train(resume_from_checkpoint=str(folder() / "checkpoints" / f"checkpoint-{done[0]}") if done else None)
