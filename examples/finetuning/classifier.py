"""Fine-tunes a classifier of texts by LoRA, with a loop of its own: `python classifier.py`."""

import torch

import search


def train(trial):
    import lora
    from texts import TRAIN, VALIDATION

    tokenizer = lora.tokenizer(trial.params["model"])
    model = lora.adapted(trial, "AutoModelForSequenceClassification", "SEQ_CLS")
    trained = lora.Trained(model)
    optimizer = torch.optim.AdamW(trained.weights.values(), lr=trial.params["lr"])

    def loss_and_hits(samples):
        batch = tokenizer([text for text, _ in samples], padding=True, return_tensors="pt").to(trial.device)
        labels = torch.tensor([label for _, label in samples], device=trial.device)
        output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels)
        return output.loss, (output.logits.argmax(1) == labels).float().mean()

    for _ in trial.epochs(trained=trained, optimizer=optimizer):
        model.train()
        for rows in torch.randperm(len(TRAIN)).split(16):
            loss, _ = loss_and_hits([TRAIN[row] for row in rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            val_loss, accuracy = loss_and_hits(VALIDATION)
        yield {"val_loss": val_loss, "val_accuracy": accuracy}


if __name__ == "__main__":
    import lora

    found = search.run(train, lora.SPACE, "val_loss min", trials=6, epochs=4, name="classifier")
    print(found.best.params, found.best.value)
