"""Adam with a rule for each weight: learning rate, weight decay, decay to the first value, and the step that unfreezes it."""

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
"""Fraction of the steps after which gradual unfreezing has unfrozen every block."""

INITIAL_RATE = 1 / 100
"""Learning rate at the start of the warm-up, relative to the peak."""

WIDE = 1_024
"""Features that a head may have to be finetuned at the full learning rate."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How one weight is trained.

    Attributes:
        rate: Factor of the learning rate, and with it of both decays.
        decay: Decoupled weight decay (Loshchilov and Hutter, 2019).
        pull: Decoupled decay of the distance to the first value: L2-SP (Li, Grandvalet and Davoine, 2018) as in AdamW.
        opens: The step, counted from 0, that unfreezes the weight; it keeps its bits until then.
    """

    rate: float = 1.0
    decay: float = 0.0
    pull: float = 0.0
    opens: int = 0


def rules(blocks: Sequence[Sequence[keras.Layer]], variables: Sequence[Any], phase: Phase, steps: int) -> tuple[Rule, ...]:
    """Returns one rule per variable.

    The learning rate falls by the factor `phase.layer_decay` from each block to the one below it, from the head down (Howard and
    Ruder, 2018; Clark et al., 2020). Vectors (biases, and gains and offsets of normalization) have no weight decay. The head has no
    pretrained weights for L2-SP. Gradual unfreezing from the head down follows Howard and Ruder (2018).

    A step of Adam changes each score by the learning rate times a sum over all features. The learning rate of a head that is
    finetuned therefore falls with its width (Yang et al., 2022), from `WIDE` features on. Measured on 430 signs: an early cut of
    MobileNet whose 4x4 grid has 4,096 features ends at a validation loss of 0.69, and of 0.85 at the full rate.

    Args:
        blocks: Layers with weights, grouped from the input to the head.
        variables: The trainable variables; one that is in no block counts as one of the lowest.
        phase: What the strategy planned.
        steps: In the whole phase.
    """
    last = len(blocks) - 1
    depths = {id(v): last - i for i, block in enumerate(blocks) for layer in block for v in layer.variables}
    result = []
    for variable in variables:
        depth = depths.get(id(variable), last)  # 0 in the head
        head_kernel = phase.name == "tune" and not depth and len(variable.shape) == 2
        result.append(
            Rule(
                rate=phase.layer_decay**depth * (min(1.0, WIDE / variable.shape[0]) if head_kernel else 1.0),
                decay=phase.weight_decay if len(variable.shape) > 1 else 0.0,
                pull=phase.l2_sp if depth else 0.0,
                opens=int(UNFREEZING * steps * depth / len(blocks)) if phase.unfreeze == "gradual" else 0,
            )
        )
    return tuple(result)


def schedule(phase: Phase, steps: int) -> Any:
    """Returns the learning rate over `steps` steps, as a number or a Keras schedule: a linear warm-up, then a half cosine."""
    warm_up = round(phase.warm_up * steps)
    if phase.schedule == "constant" and not warm_up:
        return phase.learning_rate
    floor = 1.0 if phase.schedule == "constant" else 0.0  # a constant rate is a cosine that does not decay
    if not warm_up:
        return optimizers.schedules.CosineDecay(phase.learning_rate, steps, alpha=floor)
    return optimizers.schedules.CosineDecay(
        phase.learning_rate * INITIAL_RATE,
        max(1, steps - warm_up),
        alpha=floor,
        warmup_target=phase.learning_rate,
        warmup_steps=warm_up,
    )


class RuledAdam(optimizers.Adam):  # type: ignore[misc]
    """Adam (Kingma and Ba, 2015) with one `Rule` per variable.

    Args:
        rules: One per variable, in the order of the variables that the optimizer is built for.
        learning_rate: A number or a schedule.
        average: Momentum of the moving average of the weights, in [0, 1); 0 for none. After t of the first steps it is at most
            t / (t + 9), so that the average leaves the first weights quickly.
    """

    def __init__(self, rules: Sequence[Rule], learning_rate: Any, average: float = 0.0) -> None:
        super().__init__(learning_rate=learning_rate, use_ema=average > 0, ema_momentum=average)
        self._rules = tuple(rules)
        self._starts: list[Any] = []

    def build(self, variables: list[Any]) -> None:
        """Creates the moments, and copies of the first values of weights with L2-SP."""
        if self.built:
            return
        super().build(variables)
        self._starts = [
            self.add_variable_from_reference(variable, name="start") if rule.pull else None
            for variable, rule in zip(variables, self._rules, strict=True)
        ]
        for variable, start in zip(variables, self._starts, strict=True):
            if start is not None:
                # Copied through NumPy: JAX would use the same memory for both, and donates it at every step.
                start.assign(keras.ops.convert_to_numpy(variable).copy())

    @property
    def state(self) -> list[Any]:
        """The variables that change from step to step: all but the first values."""
        starts = {id(start) for start in self._starts if start is not None}
        return [variable for variable in self.variables if id(variable) not in starts]

    @property
    def averages(self) -> list[NDArray[np.floating]]:
        """Copies of the moving averages in the order of the variables; empty without averages."""
        averages = self._model_variables_moving_average if self.use_ema else []
        return [keras.ops.convert_to_numpy(average).copy() for average in averages]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable by one step."""
        i = self._get_variable_index(variable)
        rule, momentum, velocity, kind = self._rules[i], self._momentums[i], self._velocities[i], variable.dtype
        gradient, rate = ops.cast(gradient, kind), ops.cast(learning_rate, kind) * rule.rate
        step = ops.cast(self.iterations + 1, kind)
        # Moments are also updated before a weight is unfrozen: bias correction counts from the first step, and fresh moments would
        # start with a jump.
        self.assign_add(momentum, (gradient - momentum) * (1 - self.beta_1))
        self.assign_add(velocity, (ops.square(gradient) - velocity) * (1 - self.beta_2))
        correction = ops.sqrt(1 - ops.power(ops.cast(self.beta_2, kind), step)) / (1 - ops.power(ops.cast(self.beta_1, kind), step))
        change = momentum * (rate * correction) / (ops.sqrt(velocity) + self.epsilon)
        if rule.decay:
            change = change + ops.convert_to_tensor(variable) * (rate * rule.decay)
        if rule.pull:
            change = change + (ops.convert_to_tensor(variable) - self._starts[i]) * (rate * rule.pull)
        if rule.opens:
            # `where` and not a product with 0, which would turn -0.0 into 0.0 and flush subnormal numbers.
            value = ops.convert_to_tensor(variable)
            self.assign(variable, ops.where(self.iterations >= rule.opens, value - change, value))
        else:
            self.assign_sub(variable, change)

    def _update_model_variables_moving_average(self, trainable_variables: Any) -> None:
        done = ops.cast(self.iterations, "float32")
        momentum = ops.minimum(np.float32(self.ema_momentum), done / (done + 9))
        for variable, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):
            average.assign(average + (1 - momentum) * (ops.convert_to_tensor(variable) - average))
