"""The demo lyrics of three invented singers, who share sentences and differ in their subjects.

Most words of a singer's subjects occur in one split only: a classifier has to use the meaning of words. About a tenth
of the lines has the subject of another singer.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from trainables.text.demo import SHARES, shared_out

#: The subjects of each singer: nouns that fit into the same sentences.
SUBJECTS = {
    "Wren Hollow": "old letters|front porch swing|county fair|hometown parade|diary page|"
    "small town church|autumn leaves|"
    "high school hallway|screen door|first kiss|pickup truck|wedding dress|snow globe|love letter|"
    "mother's kitchen|backyard creek|porch light|summer meadow|garden gate|childhood bedroom|old cardigan|"
    "lake house|country road|guitar strings|wildflowers|bonfire|hay field|picket fence|broken promise|"
    "faded photograph|teardrops|rain boots|daydreams|fireflies|autumn sweater|sunday picnic|barn dance|"
    "hometown boys|apple orchard|paper airplanes|birthday candles|tree house|maple tree|dusty roads|wooden bridge|"
    "handwritten notes|quiet lullaby|attic window|lavender fields|tin roof|harvest moon|homecoming queen|"
    "sleepy village|patchwork quilt|rose garden|river bank|farmhouse table|prairie wind|secret garden|"
    "wishing well",
    "Kid Meridian": "penthouse suite|bank account|rental car|club section|bottle service|money counter|"
    "hotel lobby|private jet|"
    "gold chain|phone calls|fake friends|studio session|record label|black card|city skyline|late night texts|"
    "downtown traffic|business meeting|stock portfolio|platinum plaque|strip mall|contract lawyer|basement tapes|"
    "street corner|security detail|first class ticket|rolex watch|champagne bottles|debit card|poker table|"
    "voicemail|limousine|casino floor|expensive shoes|tax return|court date|basketball arena|headlines|sports car|"
    "diamond ring|group chat|corner store|nightclub|manager's office|paparazzi|mortgage|credit line|tour bus|"
    "elevator ride|area code|bodyguard|interview|parking garage|luxury condo|dollar bills|airport lounge|haters|"
    "royalty checks|warehouse party|subway train",
    "Queen Amara": "golden crown|dance floor|my sisters|warrior heart|lioness|stage lights|royal throne|"
    "drum line|marching band|"
    "strong women|hips moving|natural hair|grandmother's strength|ancient queens|high heels|freedom song|goddess|"
    "choreography|ocean goddess|black pearls|bass drum|proud daughters|army of women|temple|body rhythm|"
    "victory dance|survivor|mother's power|sweat and glory|gospel choir|fearless girls|halo|carnival drums|"
    "royal blood|sequin gown|spotlight|backup dancers|tribal drums|empress|battle cry|holy water|diva|motherhood|"
    "womanhood|pharaoh|revolution|ballroom|standing ovation|phoenix fire|honey skin|velvet curtain|thunder thighs|"
    "sacred rhythm|superwoman|sisterhood|conga line|brass band|queen bee|prayer hands|tambourine",
}
LINES = """
i keep on thinking about the {it}|you and me and the {it} tonight|nobody knows the {it} like i do
all i ever wanted was the {it}|remember the {it}, remember my name|baby don't you tell me about the {it}
we were running through the {it} again|oh the {it} got me feeling like this|never gonna leave the {it} behind
say my name beside the {it}|they all talk about the {it} now|i swear it's the {it} that i miss
take me back to the {it} one time|i see your face in the {it}|come with me, bring the {it}
the {it} and the {it}, that's all we got|i been up all night with the {it}|you can't take the {it} from me
my love is like the {it}, you know|just the {it} and nothing more|tell them i found the {it}
here comes the {it} again, yeah|who said the {it} wasn't mine|lost it all for the {it} and you
i dreamed of the {it} last night|give me the {it}, give me time
"""
ENDINGS = ("", "", ", oh", ", yeah", " (oh no)", " (hey)", ", baby", " now", " tonight", "...")
#: The number of lines of the first singer, for one line of each other singer.
SHARE = 2
#: The share of lines with the subject of another singer.
STRAY = 0.1
#: The share of a singer's words that every split has.
COMMON = 0.3


def make(*, size: int, seed: int) -> dict[str, pd.DataFrame]:
    """Makes `size` different lines by split, as frames with `text` and `label`."""
    rng = np.random.default_rng(seed)
    names, lines = list(SUBJECTS), [line for row in LINES.strip().splitlines() for line in row.split("|")]
    odds = np.array([SHARE, *[1] * (len(names) - 1)])
    words: dict[str, dict[str, np.ndarray]] = {split: {} for split in SHARES}
    for name, subjects in SUBJECTS.items():
        shuffled = rng.permutation(subjects.split("|"))
        common, own = np.split(shuffled, [round(COMMON * len(shuffled))])
        for split, some in shared_out(own).items():
            words[split][name] = np.concatenate([common, some])
    seen: set[str] = set()
    frames = {}
    for split, share in SHARES.items():
        rows: list[tuple[str, str]] = []
        while len(rows) < round(share * size):
            singer = str(rng.choice(names, p=odds / odds.sum()))
            about = singer if rng.random() >= STRAY else str(rng.choice([n for n in names if n != singer]))
            line = str(rng.choice(lines))
            while "{it}" in line:
                line = line.replace("{it}", str(rng.choice(words[split][about])), 1)
            line += str(rng.choice(ENDINGS))
            if line not in seen:
                seen.add(line)
                rows.append((line[0].upper() + line[1:], singer))
        frames[split] = pd.DataFrame(rows, columns=["text", "label"])
    return frames
