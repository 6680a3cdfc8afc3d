"""The SVM head against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from contracts.problems import ROWS
from handful.learners.metaoptnet import MetaOptNet


@pytest.mark.parametrize("penalty", [0.1, 1.0])
def test_logits_are_the_scaled_scores_of_an_svm_on_the_features(penalty):
    learner, task = ROWS.learner(MetaOptNet, penalty=penalty), ROWS.task()
    with torch.no_grad():
        support, query = (learner.backbone(part.inputs).numpy() / 2 for part in task)  # 4 features
        logits = learner.predict(learner.adapt(task.support, ROWS.spec), task.query.inputs).logits
    reference = LinearSVC(multi_class="crammer_singer", C=penalty, tol=1e-7, max_iter=10**6, random_state=0)
    scores = reference.fit(support, task.support.targets.numpy()).decision_function(query)
    np.testing.assert_allclose(logits / learner.log_scale.exp().item(), scores, atol=2e-3)
