"""The mistakes that mutants.py makes, for each file: what people do get wrong, and the tests that have to notice.

# the mistake
@ the file of tests, the expression of `pytest -k`, and x2 where the text occurs twice
- the text before, line by line
+ the text after
"""

TRANSFORMERS = {
    "flows/transformers/affine.py": """
# Additive: the inverse adds again
@ test_transformers.py exact and Additive
- return y - theta[0], jnp.zeros_like(y)
+ return y + theta[0], jnp.zeros_like(y)

# Affine: the log-det has the wrong sign
@ test_transformers.py exact and Affine
- return x * jnp.exp(s) + theta[1], s
+ return x * jnp.exp(s) + theta[1], -s

# Affine: the log-det of the inverse is the direct one
@ test_transformers.py exact and Affine
- return (y - theta[1]) * jnp.exp(-s), -s
+ return (y - theta[1]) * jnp.exp(-s), s

# Affine: the inverse scales before it shifts
@ test_transformers.py exact and Affine
- (y - theta[1]) * jnp.exp(-s)
+ (y * jnp.exp(-s) - theta[1])

# Affine: a bound that only bends
@ test_transformers.py affine_scale_is_bounded
- return bound * jnp.tanh(raw / bound)
+ return jnp.tanh(raw / bound)

# Affine: the floor of the sigmoid is dropped
@ test_numerical_transformers.py formulas and sigmoid
- return jnp.log(jax.nn.sigmoid(raw + 2) + MIN_SCALE) - at_zero
+ return jnp.log(jax.nn.sigmoid(raw + 2)) - at_zero

# Gated: the gate and what it leaves are swapped
@ test_numerical_transformers.py formulas and Gated
- MIN_SCALE + free * jax.nn.sigmoid(raw + bias), free * jax.nn.sigmoid(-raw - bias)
+ MIN_SCALE + free * jax.nn.sigmoid(-raw - bias), free * jax.nn.sigmoid(raw + bias)

# Gated: the bias has the wrong sign
@ test_numerical_transformers.py formulas and Gated
- jax.nn.sigmoid(raw + bias), free * jax.nn.sigmoid(-raw - bias)
+ jax.nn.sigmoid(raw - bias), free * jax.nn.sigmoid(bias - raw)

# Gated: the log of the wrong part
@ test_transformers.py exact and Gated
- keep * x + change * theta[1], jnp.log(keep)
+ keep * x + change * theta[1], jnp.log(change)

# Inverse: it is the transformer itself
@ test_numerical_transformers.py formulas and Inverse
- of.num_params, of.inverse, of.direct
+ of.num_params, of.direct, of.inverse
""",
    "flows/transformers/bins.py": """
# the last bin is never found
@ test_splines.py papers and Quadratic
- for i in range(1, len(totals)):
+ for i in range(1, len(totals) - 1):

# a knot too far
@ test_splines.py papers and Linear
- self.floors = [bound * (2 * floor * i - 1) for i in range(num_bins + 1)]
+ self.floors = [bound * (2 * floor * (i + 1) - 1) for i in range(num_bins + 1)]

# values outside are not left alone
@ test_splines.py beyond and RationalQuadratic
- return jnp.where(outside, x, y), jnp.where(outside, 0.0, log_det)
+ return y, jnp.where(outside, 0.0, log_det)

# log-dets outside are those at 0
@ test_transformers.py exact and RationalQuadratic
- return jnp.where(outside, x, y), jnp.where(outside, 0.0, log_det)
+ return jnp.where(outside, x, y), log_det

# the inverse looks a bin up by its x
@ test_transformers.py exact and RationalQuadratic
- backward(within, *find(theta, within, 1))
+ backward(within, *find(theta, within, 0))

# the log-det of the inverse is the direct one
@ test_transformers.py exact and Quadratic
- return x, -direct(theta, x)[1]
+ return x, direct(theta, x)[1]

# the last bin ends with its own slope
@ test_splines.py continuous and Cubic
- jnp.where(k == num_bins - 1, 1.0, d1)
+ jnp.where(k == num_bins, 1.0, d1)

# a bound's slope of 0
@ test_splines.py papers and Cubic
- return jnp.where(k == 0, 1.0, d0)
+ return jnp.where(k == 0, 0.0, d0)

# floors are dropped
@ test_splines.py papers and Quadratic
- return self.floor + each * (self.free / total(each))
+ return each * (self.free / total(each))

# raw slopes of 0 are not slopes of 1
@ test_transformers.py zero and RationalQuadratic
- return lambda raw: floor + jax.nn.softplus(raw + offset)
+ return lambda raw: floor + jax.nn.softplus(raw)

# the derivative of a knot forgets the normaliser
@ test_transformers.py differences and RationalQuadratic
- (before - low * all_change) / total
+ before / total

# the derivative of a slope goes to its neighbour
@ test_transformers.py differences and RationalQuadratic
- for end in (k - 1, k))
+ for end in (k, k + 1))
""",
    "flows/transformers/rational_quadratic.py": """
# the slopes of a bin are swapped
@ test_transformers.py exact and RationalQuadratic
- p, q = s * c + d1 * xi, s * xi + d0 * c
+ p, q = s * c + d0 * xi, s * xi + d1 * c

# the denominator of the log-det is not squared
@ test_transformers.py exact and RationalQuadratic
- * ratio * ratio)
+ * ratio)

# the slopes of a bin are swapped in the inverse
@ test_transformers.py exact and RationalQuadratic
- b = down * d0 - up * d1
+ b = down * d1 - up * d0

# the discriminant lacks a factor
@ test_splines.py inverts and RationalQuadratic
- b * b + 4 * up * down * s * s
+ b * b + 2 * up * down * s * s

# the inverse finds its bin among the widths
@ test_transformers.py exact and RationalQuadratic
- k = line.find(each[axis], value)
+ k = line.find(each[0], value)
""",
    "flows/transformers/circular.py": """
# a bin has the slopes of the one before
@ test_splines.py papers and Circular
- bins.pick(jnp.concatenate([slopes, slopes[:1]]), k + 1)
+ bins.pick(jnp.concatenate([slopes, slopes[:1]]), k)

# whole turns are lost
@ test_splines.py circular_spline
- jnp.where(beyond, value, value + (image - r))
+ jnp.where(beyond, value, image)
""",
    "flows/transformers/cubic.py": """
# the log-det lacks a factor
@ test_transformers.py exact and Cubic
- 2 * (3 * s - d0 - d1) * xi * c
+ (3 * s - d0 - d1) * xi * c

# slopes are held at half of what is allowed
@ test_splines.py papers and Cubic
- 2 * jnp.minimum(s[:-1], s[1:])
+ jnp.minimum(s[:-1], s[1:])

# the last bin has no floor of its own
@ test_splines.py papers and Cubic
- (i == 0) | (i == num_bins - 1)
+ (i == 0) | (i == num_bins)

# the implicit derivative has the wrong sign
@ test_transformers.py gradients and Cubic
- return xi, -change / slope
+ return xi, change / slope
""",
    "flows/transformers/quadratic.py": """
# the log-det runs backwards through a bin
@ test_transformers.py exact and Quadratic
- jnp.log(d0 * c + d1 * xi)
+ jnp.log(d1 * c + d0 * xi)

# the floor of slopes is dropped
@ test_splines.py papers and Quadratic
- inner = min_slope + (1 - min_slope) * slopes / mean
+ inner = slopes / mean
""",
    "flows/transformers/linear.py": """
# the log-det is that of the inverse
@ test_transformers.py exact and Linear
- jnp.log((y1 - y0) / (x1 - x0))
+ jnp.log((x1 - x0) / (y1 - y0))
""",
    "flows/transformers/linear_rational.py": """
# a bin is halved on the wrong side
@ test_transformers.py exact and LinearRational
- left, rest = halve(l * c - (1 - l) * xi)
+ left, rest = halve(l * xi - (1 - l) * c)

# the log-det has the slope of the wrong end
@ test_transformers.py exact and LinearRational
- for pair in ((xi, c), (d0, d1), (l, 1 - l)))
+ for pair in ((xi, c), (d1, d0), (l, 1 - l)))
""",
    "flows/transformers/mixture.py": """
# the tail ahead is added
@ test_transformers.py exact and DeepSigmoidal
- v = u + side * (log_full - log_empty)
+ v = u - side * (log_full - log_empty)

# MixtureCDF: the log-det lacks the last scale
@ test_transformers.py exact and MixtureCDF
- return v * jnp.exp(a) + b, log_slope + a
+ return v * jnp.exp(a) + b, log_slope

# MixtureCDF: the inverse shifts after it scales
@ test_transformers.py exact and MixtureCDF
- (y - b) * jnp.exp(-a)
+ y * jnp.exp(-a) - b

# MixtureCDF: weights sum to 1 along the batch
@ test_numerical_transformers.py formulas and MixtureCDF
- Mixture(jax.nn.log_softmax(theta[:num], axis=0), log_rate, shift)
+ Mixture(jax.nn.log_softmax(theta[:num], axis=-1), log_rate, shift)

# DeepSigmoidal: the log-det of the inverse is the direct one
@ test_transformers.py exact and DeepSigmoidal
- return x, -log_odds(mixture, x)[1]
+ return x, log_odds(mixture, x)[1]
""",
    "flows/transformers/gaussianization.py": """
# the log-det lacks the normal quantile
@ test_transformers.py exact and Gaussianization
- return y, log_slope + log_normal_slope(v, y)
+ return y, log_slope

# the derivative of the hazard lacks its 1
@ test_numerical_transformers.py normal_functions
- return e, (e * (t + e) - 1) * tangents[0]
+ return e, e * (t + e) * tangents[0]

# the tail lacks its normaliser
@ test_numerical_transformers.py normal_functions
- return t * (0.5 * t) + LOG_ROOT_2_PI + jnp.log(t + excess(t))
+ return t * (0.5 * t) + jnp.log(t + excess(t))
""",
    "flows/transformers/bernstein.py": """
# the basis is off by one
@ test_numerical_transformers.py formulas and Bernstein
- zip(offsets, basis(x, n, 2, n - 2), strict=True)
+ zip(offsets, basis(x, n, 1, n - 3), strict=True)

# slopes have not the mean 1
@ test_numerical_transformers.py formulas and Bernstein
- (1 - min_slope) * (n - 2) * jax.nn.softmax
+ (1 - min_slope) * (n - 1) * jax.nn.softmax

# log-dets outside are those at 0
@ test_transformers.py exact and Bernstein
- jnp.where(outside, 0.0, log_slope(r, inside))
+ log_slope(r, inside)
""",
    "flows/transformers/sum_of_squares.py": """
# a node too few
@ test_transformers.py exact and SumOfSquares
- np.polynomial.legendre.leggauss(degree + 1)
+ np.polynomial.legendre.leggauss(degree)

# the log-det lacks the least slope
@ test_transformers.py exact and SumOfSquares
- total = min_slope * jnp.exp(-2 * most) + (p * p
+ total = (p * p

# the log-det of the inverse is the direct one
@ test_transformers.py exact and SumOfSquares
- return x, -log_slope(coefficients, x)
+ return x, log_slope(coefficients, x)
""",
    "flows/transformers/monotonic_network.py": """
# nodes from -1/2 to 1/2
@ test_numerical_transformers.py formulas and MonotonicNetwork
- jnp.asarray(nodes + 0.5, x.dtype)
+ jnp.asarray(nodes, x.dtype)

# beyond the bound it is constant
@ test_numerical_transformers.py formulas and MonotonicNetwork
- return integral(weights, h, inside) + jnp.exp(log_g) * (x - inside), log_g
+ return integral(weights, h, inside), log_g

# the integral has no derivative in its parameters
@ test_transformers.py differences and MonotonicNetwork
- return y, change + jnp.exp(log_slope(weights, h, x)) * tangents[2]
+ return y, jnp.exp(log_slope(weights, h, x)) * tangents[2]
""",
    "flows/transformers/solve.py": """
# the implicit derivative has the wrong sign
@ test_numerical_transformers.py derivatives_of_the_solver
- (tangents[1] - change) * jnp.exp(-log_slope)
+ (tangents[1] + change) * jnp.exp(-log_slope)

# the ends of the bracket are swapped
@ test_numerical_transformers.py hard_roots and cube
- low, high = jnp.where(residual < 0, x, low), jnp.where(residual > 0, x, high)
+ low, high = jnp.where(residual > 0, x, low), jnp.where(residual < 0, x, high)
""",
}

LAYERS = {
    "flows/core/parts.py": """
# the log-det of an inverse is the direct one
@ test_bijections.py exact and ActNorm
- return x, -self.direct(params, x, context, rng, train)[1]
+ return x, self.direct(params, x, context, rng, train)[1]

# the log-det of an inverse is taken at the point given
@ test_bijections.py exact and (Softplus or Coupling-2)
- return x, -self.direct(params, x, context, rng, train)[1]
+ return x, -self.direct(params, y, context, rng, train)[1]

# fixed leaves have a gradient
@ test_authors.py gradients_stop
- return stop_fixed(cast(params, dtype)), context
+ return cast(params, dtype), context
""",
    "flows/core/params.py": """
# a momentum of 0.9 moves by 0.9
@ test_authors.py batch_norm
- return m * old + (1 - m) * new
+ return (1 - m) * old + m * new
""",
    "flows/core/authors.py": """
# a model claims as much as its strongest layer
@ test_contract.py likelihood
- return max((each.own_likelihood
+ return min((each.own_likelihood
""",
    "flows/core/layers.py": """
# all rows share one key
@ test_authors.py key_of_its_own
- keys = jax.random.split(rng, len(x)) if rng is not None
+ keys = jax.random.split(rng, 1)[jnp.zeros(len(x), int)] if rng is not None
""",
    "flows/compose.py": """
# Serial: only the last log-det counts
@ test_bijections.py exact and (Serial or RealNVP)
- x, log_det = part.direct(own, x, context, key, train)
-             total += log_det
+ x, log_det = part.direct(own, x, context, key, train)
+             total = log_det

# Serial: the first layer is skipped
@ test_bijections.py exact and Serial
- for part, own, key in zip(parts, params, split(rng), strict=True):
+ for part, own, key in list(zip(parts, params, split(rng), strict=True))[1:]:

# Serial: the inverse runs in the direct order
@ test_bijections.py exact and (Serial or RealNVP)
- return list(zip(parts, params, split(rng), strict=True))[::-1]
+ return list(zip(parts, params, split(rng), strict=True))

# Serial: a native inverse forgets log-dets
@ test_bijections.py exact and Serial and not three
- y, log_det = part.invert(own, y, context, key, train)
-             total += log_det
+ y, log_det = part.invert(own, y, context, key, train)
+             total = log_det

# Serial: later layers measure the first one's data
@ test_authors.py data_reach_later_layers
- x = measured_output(part, own, x, given.init_context, layer_key)
-             params.append(own)
-             parts.append(part)
-             shape
+ params.append(own)
+             parts.append(part)
+             shape

# Repeat: the inverse runs in the direct order
@ test_bijections.py exact and Repeat
- return scan(step, params, y, rng, True)[0]
+ return scan(step, params, y, rng, False)[0]

# Repeat: a native inverse runs in the direct order
@ test_bijections.py exact and Repeat and Invert
- part.invert(own, y, context, key, train), params, y, rng, True)
+ part.invert(own, y, context, key, train), params, y, rng, False)

# Repeat: only the last log-det counts
@ test_bijections.py exact and Repeat
- (jnp.moveaxis(y, 0, -1), total + log_det), None
+ (jnp.moveaxis(y, 0, -1), log_det), None

# Invert: it is the bijection itself
@ test_engines.py InverseAutoregressive
- return part.invert(params, x, context, rng, train)
+ return part.direct(params, x, context, rng, train)

# FactorOut: the half that leaves is the one that goes through the layers
@ test_images.py factor_out
- y, log_det = part.direct(params, x[..., out:], *call)
-             return jnp.concatenate([x[..., :out].reshape(len(x), left)
+ y, log_det = part.direct(params, x[..., : event[-1] - out], *call)
+             return jnp.concatenate([x[..., event[-1] - out :].reshape(len(x), left)

# FactorOut: a native inverse has the log-det of the direct one
@ test_bijections.py exact and FactorOut
- x, log_det = part.invert(params, stayed(y), *call)
-             return join(y, x), log_det
+ x, log_det = part.invert(params, stayed(y), *call)
+             return join(y, x), -log_det

# FactorOut: layers measure what leaves
@ test_images.py factor_out
- None if x is None else x[..., out:])
+ None if x is None else x[..., : event[-1] - out])
""",
    "flows/conditioners/network.py": """
# a squashed input is not squashed in the inverse
@ test_autoregressive.py unit_once and plain and affine
- return apply_fun.solve(params, context, y, find, seen)
+ return apply_fun.solve(params, context, y, find)

# squashing squashes to 1
@ test_coupling.py squash
- return x if squash is None else squash * jnp.tanh(x / squash)
+ return x if squash is None else jnp.tanh(x / squash)

# a user's network never sees the context
@ test_bijections.py exact and AffineCoupling and context
- x = _appended(x, context, 0)
-         own
+ x = _appended(x, 0 * context, 0)
+         own

# an image's network never sees the context
@ test_images.py context
- places = context.reshape(
+ places = (0 * context).reshape(
""",
    "flows/conditioners/masked.py": """
# a unit does not see those of its own degree
@ test_autoregressive.py triangular
- (a[:, None] <= b)
+ (a[:, None] < b)

# an output sees its own input
@ test_autoregressive.py unit_once and plain and affine
- np.concatenate([place + 1, np.zeros(context_dim, int)])
+ np.concatenate([place, np.zeros(context_dim, int)])

# the order is read the wrong way round
@ test_autoregressive.py triangular
- place = np.argsort(order)
+ place = np.asarray(order)

# no unit serves the context alone
@ test_autoregressive.py first_feature_depends
- lowest = 0 if context_dim else min(1, d - 1)
+ lowest = min(1, d - 1)

# the inverse finds features in their natural order
@ test_autoregressive.py unit_once and ordered and affine
- everything = (jnp.arange(d), jnp.asarray(order), columns, biases, units, y[order])
+ everything = (jnp.arange(d), jnp.asarray(order), columns, biases, units, y)

# the inverse leaves features in their own order
@ test_autoregressive.py unit_once and ordered and affine
- jnp.concatenate(found)[np.argsort(order)]
+ jnp.concatenate(found)[order]

# the inverse writes what it knows to the next feature's place
@ test_autoregressive.py unit_once and plain and affine
- dynamic_update_slice_in_dim(known[k], h, i * widths[k], 0)
+ dynamic_update_slice_in_dim(known[k], h, (i + 1) * widths[k], 0)

# the inverse without the context's share
@ test_autoregressive.py unit_once and plain and affine
- affine(weights[0][0][d:], weights[0][1], context)
+ affine(0 * weights[0][0][d:], weights[0][1], context)

# the last piece of a batch is lost
@ test_autoregressive.py segments_and_pieces
- count = -(-y.shape[1] // size)
-
-             def cut(a: Array) -> Array:
-                 padded = jnp.pad(a, ((0, 0), (0, count * size - a.shape[1])))
+ count = y.shape[1] // size
+
+             def cut(a: Array) -> Array:
+                 padded = a[:, : count * size]
""",
    "flows/conditioners/residual.py": """
# the context gates nothing
@ test_conditioners.py residual_network_is_its_formula
- h = h + (change * units["gates"][block] if "gates" in units else change)
+ h = h + change

# a gate without its sigmoid
@ test_conditioners.py residual_network_is_its_formula
- tuple(jax.nn.sigmoid(affine(gate["w"], gate["b"], context))
+ tuple((affine(gate["w"], gate["b"], context))

# a block replaces what it should add to
@ test_conditioners.py residual_network_is_its_formula
- h = h + (change
+ h = (change

# dropout does not keep the mean
@ test_conditioners.py makes_up_for
- jnp.where(keep, h / (1 - self.dropout), 0.0)
+ jnp.where(keep, h, 0.0)

# batch normalisation divides by the variance
@ test_conditioners.py normalised
- jax.lax.rsqrt(var + EPSILON)
+ 1 / (var + EPSILON)
""",
    "flows/bijections/act_norm.py": """
# ActNorm: the log-det of an image counts one place
@ test_bijections.py exact and ActNorm
- params["log_scale"].sum() * size(x.shape[:-1])
+ params["log_scale"].sum()

# ActNorm: data are scaled by their standard deviation
@ test_authors.py data_reach_later_layers
- {"log_scale": -jnp.log(std), "shift": mean}
+ {"log_scale": jnp.log(std), "shift": mean}

# Standardize: the log-det has the wrong sign
@ test_bijections.py stored and Standardize
- -jnp.log(std).sum() * size(x.shape[:-1])
+ jnp.log(std).sum() * size(x.shape[:-1])

# Standardize: the log-det of an image counts one place
@ test_bijections.py stored and Standardize
- -jnp.log(std).sum() * size(x.shape[:-1])
+ -jnp.log(std).sum()

# moments over the batch but not the places
@ test_images.py measured_of and ActNorm
- flat = x.reshape(-1, x.shape[-1])
+ flat = x.reshape(len(x), -1)[:, : x.shape[-1]]
""",
    "flows/bijections/batch_norm.py": """
# the log-det of an image counts one place
@ test_bijections.py exact and BatchNorm
- s.sum() * size(x.shape[1:-1])
+ s.sum()

# it divides by the variance
@ test_images.py measured_of and BatchNorm
- params["log_gamma"] - 0.5 * jnp.log(var + EPSILON)
+ params["log_gamma"] - jnp.log(var + EPSILON)

# the log-det lacks the statistics
@ test_bijections.py exact and BatchNorm
- jnp.broadcast_to(s.sum() *
+ jnp.broadcast_to(params["log_gamma"].sum() *

# the inverse forgets to shift back
@ test_bijections.py exact and BatchNorm
- return (y - along(params["beta"], y)) *
+ return y *
""",
    "flows/bijections/linear.py": """
# FixedInvertibleLinear: its log-det is taken to be 0
@ test_bijections.py stored and Linear
- log_det = jnp.linalg.slogdet(weight)[1] * size(x.shape[:-1])
+ log_det = jnp.zeros((), x.dtype)

# FixedInvertibleLinear: the inverse is that of the transpose
@ test_bijections.py stored and Linear
- jnp.linalg.solve(weight.T, columns)
+ jnp.linalg.solve(weight, columns)

# InvertibleLinear: the log-det of an image counts one place
@ test_bijections.py exact and InvertibleLinear
- params["log_s"].sum() * size(x.shape[:-1])
+ params["log_s"].sum()

# InvertibleLinear: the inverse permutes the way it went
@ test_bijections.py exact and InvertibleLinear
- order = jnp.argsort(jnp.argsort(params["fixed"]["ranks"]))
+ order = jnp.argsort(params["fixed"]["ranks"])

# InvertibleLinear: the inverse solves with the upper triangle only
@ test_bijections.py exact and InvertibleLinear
- x = solve_triangular(lower, x, trans=1, lower=True, unit_diagonal=True).T
+ x = x.T

# InvertibleLinear: it starts with its rows in the wrong order
@ test_bijections.py rotations
- {"ranks": jnp.argsort(order).astype(s.dtype)
+ {"ranks": order.astype(s.dtype)
""",
    "flows/bijections/permutation.py": """
# the inverse permutes the way it went
@ test_bijections.py exact and Shuffle
- return jnp.take(y, jnp.argsort(jnp.argsort(params["fixed"]["ranks"])), axis=-1)
+ return jnp.take(y, jnp.argsort(params["fixed"]["ranks"]), axis=-1)

# Reverse: nothing is reversed
@ test_bijections.py exact and Reverse
- jnp.arange(shape[-1], 0, -1, dtype=float)
+ jnp.arange(shape[-1], dtype=float)

# Squeeze: the inverse puts blocks on their sides
@ test_images.py squeeze
- .transpose(0, 3, 1, 4, 2)
+ .transpose(0, 4, 1, 3, 2)
""",
    "flows/bijections/elementwise.py": """
# the log-det is a mean
@ test_bijections.py exact and (Exp or Tanh)
- return direct(x), log_slope(x).sum()
+ return direct(x), log_slope(x).mean()

# Exp: the log-det has the wrong sign
@ test_bijections.py exact and Exp
- scalar_map(jnp.exp, lambda x: x, jnp.log)
+ scalar_map(jnp.exp, lambda x: -x, jnp.log)

# Softplus: the log-det of its mirror image
@ test_bijections.py exact and Softplus
- lambda x: -jax.nn.softplus(-x)
+ lambda x: -jax.nn.softplus(x)

# Tanh: the log-det lacks a factor
@ test_bijections.py exact and Tanh
- return 2 * (math.log(2)
+ return (math.log(2)

# LeakyReLU: the log-det has no logarithm
@ test_bijections.py exact and LeakyReLU
- log_of_slope = math.log(slope)
+ log_of_slope = slope

# Power: the log-det is off by one power
@ test_bijections.py exact and Power
- (p - 1) * jnp.log(x)
+ p * jnp.log(x)

# FixedAffine: the log-det of an image counts one place
@ test_bijections.py exact and FixedAffine
- float(np.log(np.abs(np.broadcast_to(a, shape))).sum())
+ float(np.log(np.abs(np.broadcast_to(a, shape[-1:]))).sum())
""",
    "flows/bijections/unit_interval.py": """
# Logit: the log-det has the wrong sign
@ test_bijections.py exact and Logit
- lambda x: -sigmoid_log_slope(direct(x))
+ lambda x: sigmoid_log_slope(direct(x))

# the log-det forgets the scale
@ test_bijections.py exact and (NormalCDF or LogisticCDF)
- return log_density(standard(x)) - math.log(scale)
+ return log_density(standard(x))

# NormalCDF: the log-det lacks its normaliser
@ test_bijections.py exact and NormalCDF
- -0.5 * (jnp.square(z) + LOG_2PI), ndtri
+ -0.5 * jnp.square(z), ndtri
""",
    "flows/bijections/supports.py": """
# the outputs of Tanh are those of a sigmoid
@ test_elementwise.py supports_can_be_read
- Tanh: Support(REAL, (-1.0, 1.0))
+ Tanh: Support(REAL, UNIT)
""",
    "flows/bijections/coupling.py": """
# the log-det lacks the unconditional part
@ test_engines.py unconditional
- total += _of_rows(log_det)
+ pass

# the unconditional part is not inverted
@ test_engines.py unconditional
- kept_x = trained.inverse(params["unconditional"], kept_x)[0]
+ kept_x = trained.direct(params["unconditional"], kept_x)[0]

# the network sees the outputs of the unconditional part
@ test_engines.py unconditional
- theta = theta_of(params, kept_x, context, rng, train)
-             y, log_det
+ theta = theta_of(params, trained.direct(params["unconditional"], kept_x)[0] if trained else kept_x, context, rng, train)
+             y, log_det

# a random mask is not restored
@ test_bijections.py exact and random
- return y[jnp.argsort(jnp.argsort(params["fixed"]["ranks"]))] if
+ return y if

# features come back in the order in which they went
@ test_engines.py Coupling and not unconditional
- else reorder(y, np.argsort(order))
+ else reorder(y, order)

# the inverse is the direct function
@ test_engines.py Coupling
- x = columns.inverse(theta, moved_y
+ x = columns.direct(theta, moved_y

# an alternating mask keeps the others
@ test_coupling.py kept_features
- return np.arange(d) % 2 == 1
+ return np.arange(d) % 2 == 0

# halves of 5 keep 3
@ test_coupling.py kept_features
- return np.arange(d) < d // 2
+ return np.arange(d) <= d // 2

# flip changes nothing
@ test_coupling.py kept_features
- keep = _kept(mask, d) ^ flip
+ keep = _kept(mask, d)

# the log-det of an image is summed over the wrong axis
@ test_bijections.py exact and Coupling and images
- return log_det.sum((0, *range(2, log_det.ndim)))
+ return log_det.sum(tuple(range(1, log_det.ndim)))[: log_det.shape[1]]
""",
    "flows/bijections/affine_coupling.py": """
# AffineCouplingSplit: the networks are swapped
@ test_coupling.py two_networks
- for each, own, keys in zip(applies, params, given, strict=True)]
+ for each, own, keys in zip(applies[::-1], params[::-1], given[::-1], strict=True)]

# NeuralSplineCoupling: the same half twice
@ test_bijections.py another and NeuralSpline
- Coupling(net, spline, flip=True)
+ Coupling(net, spline)
""",
    "flows/bijections/columns.py": """
# kinds come back in the wrong order
@ test_bijections.py exact and kinds
- back = np.argsort(self.order)
+ back = self.order

# a feature is inverted by another's kind
@ test_bijections.py exact and kinds
- jnp.asarray(self.kind_of)[feature]
+ jnp.asarray(self.kind_of)[feature - 1]

# pieces are put together in the order in which they were cut
@ test_coupling.py reorder
- for i in np.argsort(by_source)])
+ for i in by_source])
""",
    "flows/bijections/featurewise.py": """
# the log-det is summed over the batch
@ test_bijections.py exact and Elementwise
- y, log_det = trained.direct(params, leading(x))
-             return y.T.reshape(x.shape), log_det.sum(0)
+ y, log_det = trained.direct(params, leading(x))
+             return y.T.reshape(x.shape), log_det.sum() + 0 * log_det[0]

# the inverse is the direct function
@ test_bijections.py exact and Elementwise
- apply(columns.inverse, params, y, context, rng, train)
+ apply(columns.direct, params, y, context, rng, train)
""",
    "flows/bijections/autoregressive.py": """
# outputs stay in the random order
@ test_autoregressive.py triangular
- return restored(params, y).T, log_det.sum(0)
+ return y.T, log_det.sum(0)

# the inverse restores the way it ordered
@ test_bijections.py exact and Autoregressive and option
- return restored(params, x).T
+ return ordered(params, x).T

# a random order is restored by itself
@ test_bijections.py exact and Autoregressive and option
- return x[jnp.argsort(jnp.argsort(params["fixed"]["ranks"]))] if random_order else x
+ return x[jnp.argsort(params["fixed"]["ranks"])] if random_order else x

# the loop leaves out the last feature
@ test_autoregressive.py users_own
- fori_loop(0, len(y), step, jnp.zeros_like(y))
+ fori_loop(0, len(y) - 1, step, jnp.zeros_like(y))

# the loop starts at the last feature
@ test_autoregressive.py users_own
- return jax.lax.fori_loop(0, len(y), step, jnp.zeros_like(y))
+ return jax.lax.fori_loop(0, len(y), lambda i, x: step(len(y) - 1 - i, x), jnp.zeros_like(y))

# InverseAutoregressive: sampling is the slow direction
@ test_autoregressive.py gated_update
- return Invert(Autoregressive(conditioner, transformer, random_order, squash))
+ return Autoregressive(conditioner, transformer, random_order, squash)
""",
    "flows/bijections/made.py": """
# MADE: scales and shifts as in a coupling
@ test_original.py semantics
- return Autoregressive(FromTransform(transform), Inverse(Affine()))
+ return Autoregressive(FromTransform(transform), Affine())

# MaskedDense: the mask masks nothing
@ test_original.py masked_dense
- jnp.matmul(inputs, w * mask.astype(w.dtype)) + b
+ jnp.matmul(inputs, w) + b
""",
    "flows/bijections/block_autoregressive.py": """
# the log-det lacks the gate's own share
@ test_bijections.py exact and BlockAutoregressive
- return y, jnp.logaddexp(jnp.log(gate), jnp.log1p(-gate) + log_slope[:, 0])
+ return y, jnp.log1p(-gate) + log_slope[:, 0]

# the gate and what it leaves are swapped in the log-det
@ test_bijections.py exact and BlockAutoregressive
- jnp.logaddexp(jnp.log(gate), jnp.log1p(-gate) + log_slope[:, 0])
+ jnp.logaddexp(jnp.log1p(-gate), jnp.log(gate) + log_slope[:, 0])

# a block sees later features
@ test_bijections.py exact and BlockAutoregressive
- raw = jnp.where(row >= column, raw, 0.0)
+ pass

# the log-det lacks the slope of tanh
@ test_bijections.py exact and BlockAutoregressive
- log_slope, h = log_slope + slope_of_tanh.reshape(log_slope.shape), jnp.tanh(h)
+ h = jnp.tanh(h)

# the derivative of the inverse has the wrong sign
@ test_bijections.py derivatives_of_the_inverse and Block
- return x - solve_triangular(
+ return x + solve_triangular(

# the bracket of the inverse forgets the bias
@ test_coupling.py block
- centre = y - (1 - gate) * (params["layers"][-1]["b"][:, None] + shifts[1])
+ centre = y - (1 - gate) * shifts[1]
""",
    "flows/bijections/from_function.py": """
# the log-det is that of the inverse
@ test_bijections.py exact and FromFunction
- jnp.linalg.slogdet(jacobian)[1])
+ -jnp.linalg.slogdet(jacobian)[1])

# the implicit derivative has the wrong sign
@ test_bijections.py derivatives_of_the_inverse and FromFunction
- jnp.where(jnp.isfinite(change), x - change, x)
+ jnp.where(jnp.isfinite(change), x + change, x)
""",
}

DISTRIBUTIONS = {
    "flows/distributions/flow.py": """
# the log-det is subtracted
@ test_distributions.py gaussian_cases
- train) + log_det
+ train) - log_det

# the log-det is forgotten
@ test_distributions.py integrates and flow
- train) + log_det
+ train)

# samples go through the direct function
@ test_distributions.py samples_follow and Flow
- return part.inverse(params["bijection"], y, context, keys[1], False)
+ return part.direct(params["bijection"], y, context, keys[1], False)[0]

# the prior measures the data, not the noise
@ test_bases.py with_data
- noise = None if x is None else measured_output(part, params, x, given.init_context, keys[0])
+ noise = x

# the prior has no context
@ test_distributions.py reaches_the_prior
- prior_part.log_pdf(params["prior"], y, context, keys[1], train)
+ prior_part.log_pdf(params["prior"], y, None if context is None else 0 * context, keys[1], train)
""",
    "flows/distributions/normal.py": """
# the normaliser lacks its 2
@ test_distributions.py gaussian_cases
- LOG_2PI = math.log(2 * math.pi)
+ LOG_2PI = math.log(math.pi)

# a full covariance is whitened by the transpose
@ test_bases.py full_covariance
- jnp.matmul(z, inverse.T, precision="highest")
+ jnp.matmul(z, inverse, precision="highest")

# samples of the transposed covariance
@ test_bases.py full_covariance
- jnp.matmul(z, factor[0].T, precision="highest")
+ jnp.matmul(z, factor[0], precision="highest")

# the factor has an empty diagonal
@ test_bases.py full_covariance
- .set(tril) + jnp.eye(d, dtype=tril.dtype)[None]
+ .set(tril) + 0 * jnp.eye(d, dtype=tril.dtype)[None]
""",
    "flows/distributions/location_scale.py": """
# the density forgets the scale
@ test_bases.py equal_scipy and Normal
- return family.log_density(z, **theta) - s.sum(1)
+ return family.log_density(z, **theta)

# the density counts the scale the wrong way
@ test_bases.py equal_scipy and Normal
- return family.log_density(z, **theta) - s.sum(1)
+ return family.log_density(z, **theta) + s.sum(1)

# samples are divided by the scale
@ test_distributions.py samples_follow and trainable and Normal
- (loc + jnp.exp(s) * z)
+ (loc + jnp.exp(-s) * z)

# Laplace: the normaliser is missing
@ test_bases.py equal_scipy and Laplace
- return -(jnp.abs(z) + math.log(2)).sum(1)
+ return -jnp.abs(z).sum(1)

# Laplace: samples of a normal
@ test_distributions.py samples_follow and Laplace
- Family(log_density, jax.random.laplace)
+ Family(log_density, jax.random.normal)

# Logistic: one tail is missing
@ test_bases.py equal_scipy and Logistic
- 2 * jnp.log1p(jnp.exp(-jnp.abs(z)))
+ jnp.log1p(jnp.exp(-jnp.abs(z)))

# Logistic: samples of a Laplace
@ test_distributions.py samples_follow and Logistic
- Family(log_density, jax.random.logistic)
+ Family(log_density, jax.random.laplace)

# StudentT: the tail of one degree of freedom less
@ test_bases.py equal_scipy and StudentT
- - (v + 1) / 2 * tail).sum(1)
+ - v / 2 * tail).sum(1)

# StudentT: the normaliser lacks its pi
@ test_bases.py equal_scipy and StudentT
- - 0.5 * math.log(2 * math.pi)
+ - 0.5 * math.log(2)

# StudentT: samples of the degrees of freedom at the start
@ test_bases.py equal_scipy and StudentT
- return jax.random.t(rng, v, shape, v.dtype)
+ return jax.random.t(rng, df, shape, v.dtype)
""",
    "flows/distributions/uniform.py": """
# the density has the wrong sign
@ test_bases.py uniform_is_a_box
- inside = -float(np.log(box[1] - box[0]).sum())
+ inside = float(np.log(box[1] - box[0]).sum())

# the upper face is outside
@ test_bases.py uniform_is_a_box
- (x <= faces[1][None])
+ (x < faces[1][None])

# samples of the unit box
@ test_bases.py uniform_is_a_box
- faces.dtype, faces[0][None], faces[1][None])
+ faces.dtype)
""",
    "flows/distributions/gmm.py": """
# weights are not normalised
@ test_distributions.py integrates and GMM
- jax.nn.log_softmax(logits)[:, None]
+ logits[:, None]

# the log-det of the covariance is added
@ test_distributions.py gaussian_cases
- .sum(1) - log_det[:, None]
+ .sum(1) + log_det[:, None]

# samples of the transposed covariance
@ test_distributions.py samples_follow and GMM
- jnp.einsum("nij,nj->ni", tril[component], z, precision="highest")
+ jnp.einsum("nji,nj->ni", tril[component], z, precision="highest")
""",
    "flows/distributions/mixture.py": """
# weights are not normalised
@ test_distributions.py integrates and Mixture
- jax.nn.log_softmax(logits(params))[:, None]
+ logits(params)[:, None]

# samples ignore the weights
@ test_bases.py mixture_is_the_sum
- component = jax.random.categorical(which, logits(params), shape=(n,))
+ component = jax.random.categorical(which, 0 * logits(params), shape=(n,))

# copies start alike
@ test_bases.py start_apart and component0
- return loc + jax.random.normal(jax.random.fold_in(key, next(number)), loc.shape, loc.dtype)
+ return loc
""",
    "flows/distributions/infinities.py": """
# an impossible point poisons gradients
@ test_bases.py impossible_components
- jnp.where(nothing[None], 0.0, x)
+ x
""",
    "flows/distributions/joint.py": """
# only the last density counts
@ test_bases.py join_adds
- total += part.log_pdf(own, x[:, its], context, key, train)
+ total = part.log_pdf(own, x[:, its], context, key, train)
""",
    "flows/models/tabular.py": """
# RealNVP: the same half in every layer
@ test_bijections.py another and RealNVP
- Coupling(MLP(*hidden, activation=activation), Affine()), Reverse()]
+ Coupling(MLP(*hidden, activation=activation), Affine())]

# MAF: the same order in every layer
@ test_bijections.py another and MAF
- MADE(MaskedMLP(*hidden, activation=activation)), Reverse()]
+ MADE(MaskedMLP(*hidden, activation=activation))]
""",
    "flows/training/fit.py": """
# the history of an image counts one place
@ test_fit.py images
- -float(np.log(scale.std).sum()) * math.prod(train.x.shape[1:-1])
+ -float(np.log(scale.std).sum())

# the history is in standardised units
@ test_fit.py history_is_the_mean
- validations.append(float(report.validation) - log_det)
+ validations.append(float(report.validation))
""",
    "flows/training/epochs.py": """
# the last params are returned for the best
@ test_fit.py stops_early
- jnp.where(better, new, old), params, state.best)
+ new, params, state.best)

# fixed leaves train
@ test_fit.py fixed_leaves
- optimizer = optax.partition({True: optimizer, False: optax.set_to_zero()}, trainable)
+ pass
""",
}

MISTAKES = TRANSFORMERS | LAYERS | DISTRIBUTIONS
