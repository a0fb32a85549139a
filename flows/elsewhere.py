"""Names of other libraries, and their names here. `flows/__init__.py` reads this only for a name that it does not have."""

CALLED = {
    # distributions and their functions
    "TransformedDistribution": "flows.Flow(bijection, base)",
    "Transformed": "flows.Flow(bijection, base)",
    "StandardNormal": "flows.Normal()",
    "DiagGaussian": "flows.Normal(), with params flows.Normal(trainable=True)",
    "MultivariateNormal": 'flows.Normal(trainable=True, covariance="full")',
    "MultivariateNormalDiag": "flows.Normal(), with params flows.Normal(trainable=True)",
    "GaussianMixture": "flows.GMM",
    "log_prob": "flows.FitResult.log_prob, of the result of flows.fit; for a model it is log_pdf, the second of its triple",
    "draw": "flows.FitResult.draw, of the result of flows.fit; for a model it is sample, the third of its triple",
    "sample": "flows.FitResult.draw, of the result of flows.fit; for a model it is sample, the third of its triple",
    # combinators and plain maps
    "Chain": "flows.Serial",
    "CompositeTransform": "flows.Serial",
    "Scan": "flows.Repeat",
    "Inverse": "flows.Invert, or for a transformer flows.transformers.Inverse",
    "Permutation": "flows.Permute, or for a random one flows.Shuffle",
    "RandomPermutation": "flows.Shuffle",
    "Flip": "flows.Reverse",
    "ReversePermutation": "flows.Reverse",
    "LULinear": "flows.InvertibleLinear",
    "ScalarAffine": "flows.FixedAffine, or trained flows.Elementwise(flows.transformers.Affine())",
    "RationalQuadraticSpline": "flows.transformers.RationalQuadratic, in a layer such as flows.Elementwise",
    # layers with networks
    "MaskedCoupling": "flows.Coupling",
    "SplitCoupling": "flows.Coupling",
    "GeneralCouplingTransform": "flows.Coupling",
    "PiecewiseRationalQuadraticCouplingTransform": "flows.Coupling(net, flows.transformers.RationalQuadratic())",
    "MaskedAutoregressive": "flows.Autoregressive",
    "MaskedAutoregressiveTransform": "flows.Autoregressive",
    "AutoregressiveNetwork": "flows.conditioners.MaskedMLP",
    "ResidualNet": "flows.conditioners.Residual",
    # models
    "masked_autoregressive_flow": "flows.Flow(flows.MAF())",
    "MaskedAutoregressiveFlow": "flows.MAF",
    "coupling_flow": "flows.Flow(flows.RealNVP()), or with splines flows.Flow(flows.NSF(autoregressive=False))",
    "block_neural_autoregressive_flow": "flows.Flow(flows.BNAF())",
    "CNF": "flows.FFJORD, or of any network flows.Continuous",
    "ContFlow": "flows.Continuous",
    "NCSF": "flows.Autoregressive with flows.transformers.CircularRationalQuadratic()",
    "GF": "flows.GaussianizationFlow",
    # training
    "fit_to_data": "flows.fit",
    "fit_to_key_based_loss": "flows.fit_to_density",
    "NormalizingFlow": "flows.Flow(bijection, base), or for scikit-learn flows.sklearn.NormalizingFlow",
}
