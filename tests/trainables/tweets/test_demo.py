import numpy as np

from trainables.tweets import demo

SIZES = {"size": 2500, "positives": 0.18, "label_noise": 0.03, "seed": 0}


def test_tweets_demo_seed_and_shares():
    frames = demo.make(**SIZES)
    again = demo.make(**SIZES)
    assert all(frames[split].equals(again[split]) for split in frames)
    assert not frames["train"].equals(demo.make(**SIZES | {"seed": 1})["train"])
    everything = np.concatenate([frame["text"] for frame in frames.values()])
    assert len(set(everything)) == len(everything) == 2500
    assert {split: len(frame) for split, frame in frames.items()} == {"train": 1500, "val": 500, "test": 500}
    noisy = demo.make(**SIZES)["train"]["label"]
    clean = demo.make(**SIZES | {"label_noise": 0.0})["train"]["label"]
    assert (clean == "medical").mean() == 0.18
    assert (clean != noisy).mean() == 0.03


def test_medical_words_stand_in_other_tweets_too():
    train = demo.make(**SIZES | {"label_noise": 0.0})["train"]
    words = train[train["text"].str.contains("fever|surgery|allergic|therapy|diagnos", case=False)]
    assert {"medical", "other"} == set(words["label"])
