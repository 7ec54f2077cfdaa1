from search.core.config import load_config
from search.core.space import parse_space
from search.gpu.memory import Need, largest

SPACE = parse_space(
    {"width": {"int": [16, 64], "step": 16}, "batch": {"choice": [32, 128, 64]}, "lr": {"loguniform": [1e-4, 1e-2]},
     "kind": {"choice": ["small", "big"]}, "extra": {"choice": [True, False], "when": {"kind": "big"}},
     "dropout": {"uniform": [0, 0.5]}, "layers": 3}, "x.yaml",
)  # fmt: skip


def test_largest_configuration_has_the_largest_numbers_and_the_choices_with_most_parameters():
    params = largest(SPACE, lambda p: p["width"] * (10 if p["kind"] == "big" else 1) * (1 if p["extra"] else 2))
    assert params == {"width": 64, "batch": 128, "lr": 1e-3, "kind": "big", "extra": False, "dropout": 0.5, "layers": 3}


def test_a_gpu_holds_as_many_as_its_memory_does():
    gb = 2**30
    assert (Need({}, 10 * gb, 80 * gb).together, Need({}, 10 * gb, 80 * gb).share) == (7, 0.1428)
    assert Need({}, 79 * gb, 80 * gb).share == 1.0, "what needs it all, or ran out of it, has one to itself"
    for together in (2, 3, 7, 24, 60, 100):
        share = Need({}, int(80 * gb * 0.95 / together), 80 * gb).share
        assert int(1 / share + 1e-9) == together, "Ray packs just so many"
    assert Need({"width": 64}, 10 * gb, 80 * gb).describe() == (
        "resources.gpus: auto: an epoch of the largest configuration took 10.0 of 80.0 GB of a GPU: 0.1428 GPU a trial "
        "(width=64)"
    )


def test_auto_is_a_whole_gpu_until_it_is_measured():
    assert load_config("windows", ["resources.gpus=auto"]).resources.gpu_share == 1.0
