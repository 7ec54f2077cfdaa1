"""Fine-tunes a causal language model by LoRA, with a `transformers.Trainer`: `python language_model.py`."""

import search


def train(trial):
    import lora
    import transformers
    from texts import TRAIN, VALIDATION

    tokenizer = lora.tokenizer(trial.params["model"])
    train_data, val_data = (
        [{"input_ids": tokenizer(text)["input_ids"]} for text, _ in samples] for samples in (TRAIN, VALIDATION)
    )
    trainer = transformers.Trainer(
        lora.adapted(trial, "AutoModelForCausalLM", "CAUSAL_LM"),
        transformers.TrainingArguments(
            output_dir=str(trial.folder), learning_rate=trial.params["lr"], num_train_epochs=trial.of,
            eval_strategy="epoch", save_strategy="epoch", per_device_train_batch_size=16, seed=trial.seed,
            report_to="none", disable_tqdm=True, dataloader_pin_memory=trial.device.type == "cuda",
        ),
        train_dataset=train_data, eval_dataset=val_data,
        data_collator=transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )  # fmt: skip
    trial.fit(trainer)


if __name__ == "__main__":
    import lora

    found = search.run(train, lora.SPACE, "eval_loss min", trials=6, epochs=4, name="language-model")
    print(found.best.params, found.best.value)
