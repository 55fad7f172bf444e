"""Adam with a rule for each weight: its share of the rate, its decay, its pull towards the start, the step from which it moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops, optimizers
from numpy.typing import NDArray

from crossroads.strategies import Phase

UNFREEZING = 0.5
"""Share of the steps by whose end gradual unfreezing has set every block free."""

FIRST_RATE = 1 / 100
"""Share of the peak at which a rising learning rate begins."""

WIDE = 1_024
"""Features that a head may take at the whole rate while all is finetuned."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How one weight is trained.

    Attributes:
        share: Factor of the learning rate, and with it of decay and pull.
        decay: Decoupled weight decay (Loshchilov and Hutter, 2019).
        pull: Decoupled decay of the distance to the first value: L2-SP (Li, Grandvalet and Davoine, 2018) as in AdamW.
        opens: The step, counted from 0, from which the weight moves; until then it keeps its bits.
    """

    share: float = 1.0
    decay: float = 0.0
    pull: float = 0.0
    opens: int = 0


def rules(blocks: Sequence[Sequence[keras.Layer]], variables: Sequence[Any], phase: Phase, steps: int) -> tuple[Rule, ...]:
    """One rule a variable.

    The rate falls by the factor `phase.layer_decay` from each block to the one below it, from the head down (Howard and Ruder,
    2018; Clark et al., 2020). Vectors - biases, and gains and offsets of normalisation - do not decay to zero. The head has no
    pretrained weights to be pulled to. Unfreezing from the head down is that of Howard and Ruder (2018).

    A step of Adam moves each score by the rate times a sum over all features, so the rate of a head that is finetuned falls with
    its width (Yang et al., 2022), from `WIDE` features on. Measured on 430 signs: MobileNet cut early, whose 4x4 grid has 4,096
    features, ends at a validation loss of 0.69 so, and of 0.85 at the whole rate.

    Args:
        blocks: Layers with weights in groups from the input to the head.
        variables: What is trained; one that no block knows goes with the lowest.
        phase: What was planned.
        steps: In the whole phase.
    """
    last = len(blocks) - 1
    below = {id(v): last - i for i, block in enumerate(blocks) for layer in block for v in layer.variables}
    found = []
    for variable in variables:
        depth = below.get(id(variable), last)
        wide = phase.name == "tune" and not depth and len(variable.shape) == 2
        found.append(
            Rule(
                share=phase.layer_decay**depth * (min(1.0, WIDE / variable.shape[0]) if wide else 1.0),
                decay=phase.weight_decay if len(variable.shape) > 1 else 0.0,
                pull=phase.l2_sp if depth else 0.0,
                opens=int(UNFREEZING * steps * depth / len(blocks)) if phase.unfreeze == "gradual" else 0,
            )
        )
    return tuple(found)


def schedule(phase: Phase, steps: int) -> Any:
    """The learning rate over `steps` steps: a number or a Keras schedule, which rises linearly and falls as a half cosine."""
    rising = round(phase.warm_up * steps)
    if phase.schedule == "constant" and not rising:
        return phase.learning_rate
    # A constant rate is a cosine that falls to the whole of itself.
    floor = 1.0 if phase.schedule == "constant" else 0.0
    if not rising:
        return optimizers.schedules.CosineDecay(phase.learning_rate, steps, alpha=floor)
    return optimizers.schedules.CosineDecay(
        phase.learning_rate * FIRST_RATE,
        max(1, steps - rising),
        alpha=floor,
        warmup_target=phase.learning_rate,
        warmup_steps=rising,
    )


class RuledAdam(optimizers.Adam):  # type: ignore[misc]
    """Adam (Kingma and Ba, 2015) that follows one `Rule` a variable, in the order of the variables it is built for.

    Args:
        rules: One a variable.
        learning_rate: A number or a schedule.
        average: Momentum of the moving average of the weights, in [0, 1); 0 for none. Over the first steps it is smaller,
            t / (t + 9) after t of them, so that the average does not stay at the first weights.
    """

    def __init__(self, rules: Sequence[Rule], learning_rate: Any, average: float = 0.0) -> None:
        super().__init__(learning_rate=learning_rate, use_ema=average > 0, ema_momentum=average)
        self._rules = tuple(rules)
        self._starts: list[Any] = []

    def build(self, variables: list[Any]) -> None:
        """Make the moments, and copies of the first values of the weights that are pulled to them."""
        if self.built:
            return
        super().build(variables)
        self._starts = [
            self.add_variable_from_reference(variable, name="start") if rule.pull else None
            for variable, rule in zip(variables, self._rules, strict=True)
        ]
        for variable, start in zip(variables, self._starts, strict=True):
            if start is not None:
                # A copy by way of NumPy: JAX would give both the same memory, and gives up memory at every step.
                start.assign(keras.ops.convert_to_numpy(variable).copy())

    @property
    def state(self) -> list[Any]:
        """The variables that change from step to step: all but the first values."""
        starts = {id(start) for start in self._starts if start is not None}
        return [variable for variable in self.variables if id(variable) not in starts]

    @property
    def averages(self) -> list[NDArray[np.floating]]:
        """Copies of the moving averages in the order of the variables; empty where none are kept."""
        kept = self._model_variables_moving_average if self.use_ema else []
        return [keras.ops.convert_to_numpy(average).copy() for average in kept]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One step of one variable."""
        i = self._get_variable_index(variable)
        rule, momentum, velocity, kind = self._rules[i], self._momentums[i], self._velocities[i], variable.dtype
        gradient, rate = ops.cast(gradient, kind), ops.cast(learning_rate, kind) * rule.share
        step = ops.cast(self.iterations + 1, kind)
        # The moments of a weight that does not move yet are kept all the same: bias correction counts from the first step, and
        # fresh moments in mid-course would begin with a leap.
        self.assign_add(momentum, (gradient - momentum) * (1 - self.beta_1))
        self.assign_add(velocity, (ops.square(gradient) - velocity) * (1 - self.beta_2))
        correction = ops.sqrt(1 - ops.power(ops.cast(self.beta_2, kind), step)) / (1 - ops.power(ops.cast(self.beta_1, kind), step))
        change = momentum * (rate * correction) / (ops.sqrt(velocity) + self.epsilon)
        if rule.decay:
            change = change + ops.convert_to_tensor(variable) * (rate * rule.decay)
        if rule.pull:
            change = change + (ops.convert_to_tensor(variable) - self._starts[i]) * (rate * rule.pull)
        if rule.opens:
            # Chosen, not multiplied by nothing: that would turn -0.0 into 0.0, and a number below the normal ones too.
            value = ops.convert_to_tensor(variable)
            self.assign(variable, ops.where(self.iterations >= rule.opens, value - change, value))
        else:
            self.assign_sub(variable, change)

    def _update_model_variables_moving_average(self, trainable_variables: Any) -> None:
        done = ops.cast(self.iterations, "float32")
        momentum = ops.minimum(np.float32(self.ema_momentum), done / (done + 9))
        for variable, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):
            average.assign(average + (1 - momentum) * (ops.convert_to_tensor(variable) - average))
