"""Sampling: a tree-structured Parzen estimator that is reproducible trial by trial.

Trials come in batches of ``BATCH``. What trial ``n`` tries depends on the seed, on ``n`` and on the
trials of the batches before its own, in order, and on nothing else: not on how many are evaluated
at once, not on which of its batch ended first, not on whether the search was interrupted.

Sampling works on a copy of the finished trials in memory, because reading them back from a
database for every draw costs ten times as much. It is plain Python, so it cannot run on several
threads; it is done while other trials are evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from backtest.optimize.search.trial_store import complete_trial

BATCH: Final = 8
"""Trials sampled from the same knowledge, and so the most that are evaluated at once by one
process. On a test function of 22 parameters, 200 trials in batches of 8 came as far as one by one;
in batches of 16 they did not."""
STARTUP_TRIALS: Final = 3 * BATCH
"""Drawn evenly from the space before the estimator takes over: about one per parameter."""

_NAME: Final = "finished trials"


class Sampler:
    """Proposes parameters from the trials it knows of.

    Multivariate TPE (Bergstra et al. 2011, Watanabe 2023): proposals are drawn from a density of
    the best tenth of the trials, and of 24 draws the one is taken that is likeliest under it
    compared with the density of the others.

    Attributes:
        distributions: by parameter, sorted by name.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution], seed: int) -> None:
        """Begin without trials.

        Args:
            distributions: by parameter; their order does not matter.
            seed: 0 or more.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.distributions = dict(sorted(distributions.items()))
        self._seed = seed
        self._storage = InMemoryStorage()
        self._study = self._storage.create_new_study([StudyDirection.MAXIMIZE], _NAME)
        self._proposed = create_trial(state=TrialState.FAIL)  # what the API wants; never read

    def learn(self, params: Mapping[str, Any], score: float) -> None:
        """Take a finished trial into account from now on."""
        trial = complete_trial(params, self.distributions, score)
        self._storage.create_new_trial(self._study, trial)

    def propose(self, *key: int) -> dict[str, Any]:
        """Return parameters to try; the same for the same key and the same trials learnt.

        Args:
            key: what tells this proposal from all others, such as the number of the trial.
        """
        seed = int(np.random.SeedSequence((self._seed, *key)).generate_state(1)[0])
        # No trial of this storage is running, so there is none for constant_liar to avoid.
        tpe = TPESampler(
            multivariate=True, n_startup_trials=STARTUP_TRIALS, seed=seed, constant_liar=False
        )
        # A study object remembers the trials it has seen, so every proposal gets a new one.
        study = optuna.load_study(study_name=_NAME, storage=self._storage, sampler=tpe)
        params = tpe.sample_relative(study, self._proposed, self.distributions)
        for name, distribution in self.distributions.items():
            if name not in params:
                params[name] = tpe.sample_independent(study, self._proposed, name, distribution)
        return params
