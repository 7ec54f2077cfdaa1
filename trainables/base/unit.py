"""The unit in which people see the progress of a trial: epochs, or steps."""

from __future__ import annotations

from dataclasses import dataclass

from trainables.base.errors import InputError


@dataclass(frozen=True)
class Unit:
    """Converts the number of a report, by which the search counts, into epochs or steps.

    No other place converts. In a search that counts in epochs, report 3 is epoch 3.

    Attributes:
        report_every: the steps from one report to the next; None: the search counts in epochs.

    >>> Unit(100).at(3), Unit(100).count(1), Unit(None).count(1)
    ('step 300', '100 steps', '1 epoch')
    """

    report_every: int | None

    @property
    def name(self) -> str:
        """`epoch` or `step`."""
        return "epoch" if self.report_every is None else "step"

    def __call__(self, report: int) -> int:
        """The epochs or steps until a report."""
        return report * (self.report_every or 1)

    def reports(self, length: int, place: str) -> int:
        """The number of reports of a length in steps.

        Args:
            place: the length as the user wrote it, such as `--steps 2000`.

        Raises:
            InputError: the search counts in epochs, or the length is no multiple of `report_every`.
        """
        if self.report_every is None:
            raise InputError(f"{place}: give the steps from one report to the next too: --report-every 100")
        if length % self.report_every:
            least = length // self.report_every * self.report_every
            near = [str(steps) for steps in (least, least + self.report_every) if steps]
            raise InputError(
                f"{place}: must be a multiple of report_every ({self.report_every}), such as {' or '.join(near)}"
            )
        return length // self.report_every

    def at(self, report: int) -> str:
        """The place of a report, such as `epoch 3`."""
        return f"{self.name} {self(report)}"

    def count(self, reports: int) -> str:
        """The length of some reports, such as `3 epochs`."""
        number = self(reports)
        return f"{number} {self.name}" if number == 1 else f"{number} {self.name}s"


#: The unit of a search that counts in epochs.
EPOCHS = Unit(None)
