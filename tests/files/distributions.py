"""Every distribution, in files that later versions have to load."""

from typing import Any

from files.layers import net
from files.own import Case, few

import flows
from flows.conditioners import Residual


def gmm(trainable: bool) -> Any:
    means, covariances = [[-1.0, 0.0], [1.0, 0.5]], [[[0.3, 0.1], [0.1, 0.4]], [[0.5, -0.2], [-0.2, 0.3]]]
    return flows.GMM(means, covariances, [0.3, 0.7], trainable=trainable)


trained = [
    flows.Normal(trainable=True),
    flows.Normal(trainable=True, covariance="full"),
    flows.Laplace(trainable=True),
    flows.Logistic(trainable=True),
    flows.StudentT(df=5.0, trainable=True),
]
still = [flows.Normal(), flows.Laplace(), flows.Logistic(), flows.StudentT(), flows.Uniform(-5.0, (5.0, 6.0))]
shapes = [
    flows.datasets.TwoMoons(noise=0.3),
    flows.datasets.Spirals(noise=0.4),
    flows.datasets.EightGaussians(radius=2.0),
    flows.Mixture(flows.datasets.Checkerboard(), flows.Normal()),  # as half of the plane is off the board
    flows.datasets.Rings(2, noise=0.3),
    flows.datasets.Pinwheel(3),
]
mixtures = [
    flows.Mixture(flows.Normal(trainable=True), flows.Laplace(), flows.Uniform(-5.0, 5.0)),
    flows.Mixture(flows.Normal(), flows.StudentT(3.0, True), weights=(0.2, 0.8), trainable=False),
    flows.Mixture(flows.Normal(trainable=True, covariance="full"), num_components=3),
    flows.Mixture(flows.Flow(flows.Coupling(net), flows.Laplace(trainable=True)), num_components=2),
    gmm(trainable=False),
    gmm(trainable=True),
    flows.Flow(flows.ActNorm(), flows.Flow(flows.Coupling(net), gmm(trainable=True))),
]
of_context = [
    flows.Normal(conditioner=net),
    flows.Normal(covariance="full", conditioner=Residual(6, blocks=1, batch_norm=True)),
    flows.Laplace(conditioner=net),
    flows.Logistic(conditioner=flows.MLP()),
    flows.StudentT(conditioner=net),
    flows.StandardizedContext(flows.Flow(flows.Coupling(net), flows.Normal(conditioner=net))),
    flows.Mixture(flows.Flow(flows.Coupling(net)), num_components=3),
    flows.Mixture(flows.Normal(conditioner=net), flows.Laplace(True), trainable=False),
    flows.MixtureMADE(2, hidden=(6,)),
    flows.Normal(trainable=True),
]


def joint(bases: list) -> Any:
    return flows.Joint(*bases, sizes=[2] * len(bases))


DISTRIBUTIONS = {
    "bases": Case(joint([*trained, *still]), event=2 * len([*trained, *still])),
    "data_sets": Case(joint(shapes), event=2 * len(shapes)),
    "mixtures": Case(joint(mixtures), event=2 * len(mixtures)),
    "bases_of_context": Case(joint(of_context), event=2 * len(of_context), context=3),
    "normal": Case(flows.Normal()),
    "normal_trainable": Case(flows.Normal(trainable=True), event=(2, 3)),
    "standardized_context": Case(flows.StandardizedContext(flows.Flow(flows.MAF(1, **few))), context=2),
    "flow_of_a_mixture": Case(flows.Flow(flows.RealNVP(2, **few), flows.Mixture(flows.Normal(True), num_components=2))),
}
